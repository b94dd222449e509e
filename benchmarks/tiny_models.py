"""Models of random numbers with the tokenizers of real ones, as folders that a spec can name.

In:  a folder that may be made.
Out: a decoder of one layer and encoders of one layer; their texts have the lengths, chunks and windows of the real
     models', and reading them costs next to nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedModel,
    XLMRobertaConfig,
)

from memorag_pipeline.models.references import SPARSE_LAYER, resolve

MEMORY_MODEL = "package:smollm2-135m-instruct"
EMBEDDING_MODEL = "package:all-minilm-l6-v2"
_SEED = 5  # the same weights, and so the same digest, each time
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "vocab.txt")


def tiny_memory_model(folder: Path, context: int = 131_072) -> Path:
    """A Llama of one layer with one head of 8, under the tokenizer of SmolLM2."""
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(_SEED)
    return _save(AutoModelForCausalLM.from_config(config), MEMORY_MODEL, folder)


def tiny_embedding_model(folder: Path) -> Path:
    """A BERT of one layer with 16 dimensions, under the tokenizer of all-MiniLM-L6-v2."""
    torch.manual_seed(_SEED)
    return _save(AutoModel.from_config(_bert()), EMBEDDING_MODEL, folder)


def tiny_sparse_model(folder: Path) -> Path:
    """An XLM-RoBERTa of one layer with 16 dimensions and a sparse layer, as BGE-M3 is made.

    Its tokenizer is that of all-MiniLM-L6-v2, set to end a text with [SEP], as XLM-RoBERTa's does with its own mark.
    """
    torch.manual_seed(_SEED)
    config = XLMRobertaConfig(
        vocab_size=30_522,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=0,
    )
    _save(AutoModel.from_config(config), EMBEDDING_MODEL, folder)
    save_file({"weight": torch.randn(1, 16), "bias": torch.full((1,), 4.0)}, folder / SPARSE_LAYER)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "eos_token": "[SEP]"}), encoding="utf-8")
    return folder


def tiny_reranker(folder: Path) -> Path:
    """A cross-encoder of one layer with one score, under the tokenizer of all-MiniLM-L6-v2."""
    torch.manual_seed(_SEED)
    return _save(AutoModelForSequenceClassification.from_config(_bert(num_labels=1)), EMBEDDING_MODEL, folder)


def _bert(**more: int) -> BertConfig:
    return BertConfig(
        vocab_size=30_522,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=512,
        **more,
    )


def _save(model: PreTrainedModel, tokenizer: str, folder: Path) -> Path:
    model.save_pretrained(folder)
    for name in _TOKENIZER:
        source = resolve(tokenizer).folder / name
        if source.exists():
            shutil.copy(source, folder / name)
    return folder
