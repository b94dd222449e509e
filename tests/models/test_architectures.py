"""The parameters that are known here are those that transformers makes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from memorag_pipeline.models.architectures import parameters_of

DECODER = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER |= {"num_key_value_heads": 2, "vocab_size": 50}
ENCODER = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER |= {"vocab_size": 50, "max_position_embeddings": 40, "type_vocab_size": 1}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (AutoModelForCausalLM, LlamaConfig(**DECODER)),
        (AutoModelForCausalLM, LlamaConfig(**DECODER, attention_bias=True, mlp_bias=True, head_dim=8)),
        (AutoModelForCausalLM, LlamaConfig(**DECODER, tie_word_embeddings=True)),
        (AutoModelForCausalLM, MistralConfig(**DECODER)),
        (AutoModelForCausalLM, Qwen2Config(**DECODER)),
        (AutoModelForCausalLM, Qwen2Config(**DECODER, tie_word_embeddings=True)),
        (AutoModelForCausalLM, Qwen3Config(**DECODER)),
        (AutoModelForCausalLM, Qwen3Config(**DECODER, attention_bias=True, head_dim=6)),
        (AutoModel, Qwen2Config(**DECODER)),
        (AutoModel, BertConfig(**ENCODER)),
        (AutoModel, RobertaConfig(**ENCODER)),
        (AutoModel, XLMRobertaConfig(**ENCODER)),
        (AutoModelForSequenceClassification, BertConfig(**ENCODER, num_labels=1)),
        (AutoModelForSequenceClassification, XLMRobertaConfig(**ENCODER, num_labels=1)),
        (AutoModelForSequenceClassification, XLMRobertaConfig(**ENCODER, num_labels=3)),
    ],
    ids=lambda value: getattr(value, "model_type", getattr(value, "__name__", "")),
)
def test_names_and_shapes_are_those_of_transformers(kind: Any, config: Any) -> None:
    with torch.device("meta"):
        model = kind.from_config(config)
    saved = json.loads(model.config.to_json_string(use_diff=True))
    saved["architectures"] = [type(model).__name__]
    parameters = parameters_of(saved)
    assert parameters is not None
    made = {parameters.short(name): tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert made.items() <= parameters.shapes.items()
    assert parameters.needed.items() <= made.items()
    assert parameters.embedding in parameters.needed


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "gemma3"},
        {"model_type": "llama"},
        {"model_type": "llama", **DECODER, "hidden_size": "wide"},
        {"model_type": "llama", **DECODER, "hidden_size": None},
        {"model_type": "llama", **DECODER, "num_attention_heads": 0},
        {"model_type": ["llama"]},
    ],
)
def test_what_is_not_known_is_left_to_transformers(config: dict[str, Any]) -> None:
    assert parameters_of(config) is None
