"""Small random decoders of every supported type, saved as Hugging Face folders with a real tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from memorag_pipeline.memory.full import FullMemoryModel
from memorag_pipeline.memory.language_model import LanguageModel, load_language_model
from memorag_pipeline.models import resolve

SMOLLM2 = "package:smollm2-135m-instruct"
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 49152,
    "max_position_embeddings": 640,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
TYPES = tuple(_CONFIGS)

MakeFolder = Callable[[str], Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models gain nothing from threads, and lose much when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Folder of a random model of a type, made once."""
    folders: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in folders:
            folder = tmp_path_factory.mktemp(model_type)
            torch.manual_seed(5)
            AutoModelForCausalLM.from_config(_CONFIGS[model_type](**_SIZES)).save_pretrained(folder)
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copy(resolve(SMOLLM2).folder / name, folder / name)
            folders[model_type] = folder
        return folders[model_type]

    return make


@pytest.fixture
def tiny(tiny_folder: MakeFolder) -> LanguageModel:
    """A small random Llama in float32."""
    return load_language_model(str(tiny_folder("llama")), None, "float32")


@pytest.fixture
def tiny_memory_model(tiny: LanguageModel) -> FullMemoryModel:
    """The same with memories of kind full and windows of 32 tokens."""
    return FullMemoryModel(tiny, "en", window=32)


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same weights with transformers' own attention and cache."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def stream_of(tokens: int, seed: int = 0) -> list[int]:
    """A random token stream without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(100, 40_000, (tokens,), generator=generator).tolist()
