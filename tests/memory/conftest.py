"""Small random decoders of every supported type, with and without beacon parameters, and memory models over them."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from memorag_pipeline.memory.engine.beacon_parameters import EMBEDDING, BeaconParameters
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel, WindowedMemoryModel
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.references import ResolvedModel, resolve
from memorag_pipeline.specs.memory import MemorySpec

SMOLLM2 = "package:smollm2-135m-instruct"
WINDOW, SMALL = 32, 500
# Where models without a folder compute; those with one are on the GPU if there is one.
DEVICE = torch.device(os.environ.get("MEMORAG_TEST_DEVICE", "cpu"))
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
MakeModel = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models gain nothing from threads, and lose much when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def compared_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found on a GPU may be compared with what is computed on the CPU."""
    compare = torch.testing.assert_close

    def assert_close(found: Any, wanted: Any, **rest: Any) -> None:
        compare(*(each.cpu() if isinstance(each, Tensor) else each for each in (found, wanted)), **rest)

    if DEVICE.type != "cpu" or torch.cuda.is_available():
        monkeypatch.setattr(torch.testing, "assert_close", assert_close)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Folder of a random model of a type, made once."""
    folders: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in folders:
            folders[model_type] = tmp_path_factory.mktemp(model_type)
            save_random_model(folders[model_type], model_type)
        return folders[model_type]

    return make


@pytest.fixture(scope="session")
def beacon_folder(tiny_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Folder of the same model with random beacon parameters in its checkpoint, made once."""
    folders: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in folders:
            folder = tmp_path_factory.mktemp("beacon") / model_type
            shutil.copytree(tiny_folder(model_type), folder)
            tensors = load_file(folder / "model.safetensors")
            save_file(tensors | beacon_tensors(tensors), folder / "model.safetensors", metadata={"format": "pt"})
            change_config(folder, beacon_window=WINDOW, beacon_ratio=[4], beacon_param=["q", "k", "v"])
            folders[model_type] = folder
        return folders[model_type]

    return make


@pytest.fixture(scope="session")
def adapter(tiny_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beacon parameters of `beacon_folder("llama")` as an adapter file for `tiny_folder("llama")`."""
    folder = tiny_folder("llama")
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    metadata = {"beacon_window": str(WINDOW), "beacon_ratio": "4", "base": "tiny"}
    metadata["base_digest"] = resolve(str(folder)).digest
    save_file(beacon_tensors(load_file(folder / "model.safetensors")), path, metadata=metadata)
    return path


@pytest.fixture(scope="session")
def make_model(tiny_folder: MakeFolder, beacon_folder: MakeFolder) -> MakeModel:
    """Make a memory model as a spec asks for it; a beacon model has random beacon parameters."""

    def make(kind: str, model_type: str = "llama", language: str = "en", **fields: Any) -> Any:
        folder = (beacon_folder if kind == "beacon" else tiny_folder)(model_type)
        values = {"model": str(folder), "window": WINDOW, "dtype": "float32"} | fields
        return load_memory_model(MemorySpec(kind=kind, **values), language)

    return make


@pytest.fixture(scope="session")
def tiny(tiny_folder: MakeFolder) -> LanguageModel:
    """A small random Llama in float32."""
    return load_language_model(str(tiny_folder("llama")), None, "float32")


@pytest.fixture(scope="session")
def tiny_memory_model(make_model: MakeModel) -> FullMemoryModel:
    """The same with memories of kind full and windows of 32 tokens."""
    model: FullMemoryModel = make_model("full")
    return model


def small_model(model_type: str = "llama", **changes: Any) -> PreTrainedModel:
    """A random model of few tokens, for tests without text."""
    return random_model(model_type, **{"vocab_size": SMALL, "max_position_embeddings": 4096} | changes)


def random_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """A small decoder with the same random weights each time."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(_CONFIGS[model_type](**_SIZES | changes))
    for name, parameter in model.named_parameters():
        # Norms and biases start as ones and zeros, which would hide that one is forgotten.
        if name.endswith(("norm.weight", "bias")):
            parameter.data += torch.randn_like(parameter) * 0.2
    return model.eval().requires_grad_(False)


def save_random_model(folder: Path, model_type: str, **changes: Any) -> None:
    """Write a `random_model` with the tokenizer of a real one."""
    random_model(model_type, **changes).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(resolve(SMOLLM2).folder / name, folder / name)


def beacon_tensors(tensors: dict[str, Tensor], letters: str = "qkv", seed: int = 9) -> dict[str, Tensor]:
    """Random beacon parameters for a model's tensors, named as in a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    hidden = tensors["model.embed_tokens.weight"].shape[1]
    found = {EMBEDDING: torch.randn(1, hidden, generator=generator) * 0.1}
    for name, tensor in tensors.items():
        if any(f".self_attn.{letter}_proj." in name for letter in letters):
            beacon = name.replace(".self_attn.", ".self_attn.beacon_")
            found[beacon] = torch.randn(tensor.shape, generator=generator) * 0.1
    return found


def random_beacons(model: PreTrainedModel, letters: str = "qkv") -> BeaconParameters:
    """Random beacon parameters of a model."""
    found = beacon_tensors(model.state_dict(), letters)
    layers: list[dict[str, nn.Linear]] = [{} for _ in model.get_decoder().layers]
    for number, layer in enumerate(layers):
        for letter in letters:
            name = f"model.layers.{number}.self_attn.beacon_{letter}_proj"
            weight, bias = found[f"{name}.weight"], found.get(f"{name}.bias")
            layer[letter] = nn.Linear(*weight.T.shape, bias=bias is not None).requires_grad_(False)
            layer[letter].weight.copy_(weight)
            if bias is not None:
                layer[letter].bias.copy_(bias)
    return BeaconParameters(found[EMBEDDING], layers, "random")


def change_config(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


class Numbers:
    """Replaces a tokenizer: a token's text is its number."""

    def text(self, token_ids: Sequence[int]) -> str:
        return "".join(f"{token} " for token in token_ids)


def on_device(module: Any) -> Any:
    """A module, or a copy on `DEVICE`: what it is compared with stays on the CPU."""
    return module if module is None or DEVICE.type == "cpu" else copy.deepcopy(module).to(DEVICE)


def bare(
    model: PreTrainedModel,
    beacons: BeaconParameters | None = None,
    kind: type[WindowedMemoryModel] = BeaconMemoryModel,
    *,
    window: int = WINDOW,
    ratios: Sequence[int] = (4,),
    ratio_mix: str = "sequence",
    sink: int = 0,
    policy: str = "",
    context: int = 1 << 20,
    budget: int | None = None,
) -> Any:
    """A memory model over a decoder without a folder and a tokenizer."""
    model, beacons = on_device(model), on_device(beacons)
    language_model = LanguageModel(
        model=model,
        tokenizer=Numbers(),  # type: ignore[arg-type]
        device=DEVICE,
        dtype=torch.float32,
        resolved=ResolvedModel("bare", None, Path(), "", ""),
        context=context,
        end_ids=frozenset(),
    )
    stream = StreamFormat(language_model.tokenizer, (), (), ())
    origin = MemoryOrigin(kind.kind, "bare", "", "", window, "float32", tuple(ratios), ratio_mix, sink, policy)
    picker = Ratios(ratios, ratio_mix, window, context)
    return kind(language_model, Network(model, beacons), stream, origin, picker, budget=budget)


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same weights with transformers' own attention and cache."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def stream_of(tokens: int, seed: int = 0, vocabulary: int = 40_000) -> list[int]:
    """A random token stream without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(100, vocabulary, (tokens,), generator=generator).tolist()


def small_stream(tokens: int, seed: int = 0) -> list[int]:
    """The same for a `small_model`."""
    return stream_of(tokens, seed, SMALL)


def same_bits(one: BeaconMemory, other: BeaconMemory) -> bool:
    """Whether two memories are equal in every bit."""
    parts = [(*memory.keys, *memory.values, *memory.positions, memory.token_ids) for memory in (one, other)]
    return one.windows == other.windows and all(torch.equal(a, b) for a, b in zip(*parts, strict=True))


def assert_same(one: BeaconMemory, other: BeaconMemory, atol: float = 1e-5) -> None:
    """Two memories are of the same slots, and nearly equal."""
    assert one.windows == other.windows
    assert torch.equal(one.token_ids, other.token_ids)
    for a, b in zip(
        (*one.keys, *one.values, *one.positions), (*other.keys, *other.values, *other.positions), strict=True
    ):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)
