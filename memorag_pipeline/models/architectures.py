"""A model's parameters by its configuration: names and shapes, for decoders and BERT-like encoders.

In:  the keys of config.json.
Out: `Parameters`; None for an unknown architecture, or a configuration that leaves sizes open.

transformers knows them as well, but takes seconds to import and needs torch, while a spec is checked at once and
without either. The tests compare both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
# Key/value heads and head size, if a configuration does not set them.
_KV_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_HEAD_SIZE = {"qwen3": 128}
_ENCODERS = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta."}


@dataclass(frozen=True)
class Parameters:
    """Parameters by name, without `prefix`, which a checkpoint may have before those of the model below the head.

    Those in `optional` are used if present, and nothing is lost without them.
    """

    prefix: str
    embedding: str
    needed: Mapping[str, Shape]
    optional: Mapping[str, Shape]

    @property
    def shapes(self) -> dict[str, Shape]:
        """All of them."""
        return {**self.needed, **self.optional}

    def short(self, name: str) -> str:
        """The name used here for a name in a checkpoint."""
        return name.removeprefix(self.prefix)


def parameters_of(config: Mapping[str, Any]) -> Parameters | None:
    """The parameters of a model."""
    kind = str(config.get("model_type"))
    make = _decoder if kind in ("llama", *_KV_HEADS) else _encoder if kind in _ENCODERS else None
    try:
        return None if make is None else make(kind, config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _decoder(kind: str, config: Mapping[str, Any]) -> Parameters:
    hidden, inner, layers = (
        int(config[f"{name}"]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    vocabulary, heads = int(config["vocab_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or _KV_HEADS.get(kind, heads))
    size = int(config.get("head_dim") or _HEAD_SIZE.get(kind, 0) or hidden // heads)
    linear = {
        "self_attn.q_proj": (heads * size, hidden),
        "self_attn.k_proj": (kv_heads * size, hidden),
        "self_attn.v_proj": (kv_heads * size, hidden),
        "self_attn.o_proj": (hidden, heads * size),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    layer: dict[str, Shape] = {f"{name}.weight": shape for name, shape in linear.items()}
    layer |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    layer |= {f"{name}.bias": linear[name][:1] for name in linear if _has_bias(kind, name, config)}
    if kind == "qwen3":
        layer |= {"self_attn.q_norm.weight": (size,), "self_attn.k_norm.weight": (size,)}
    needed: dict[str, Shape] = {"embed_tokens.weight": (vocabulary, hidden), "norm.weight": (hidden,)}
    needed |= {f"layers.{number}.{name}": shape for number in range(layers) for name, shape in layer.items()}
    head: dict[str, Shape] = {"lm_head.weight": (vocabulary, hidden)}
    tied = bool(config.get("tie_word_embeddings", False))
    writes = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or [])
    if writes and not tied:
        return Parameters("model.", "embed_tokens.weight", needed | head, {})
    return Parameters("model.", "embed_tokens.weight", needed, head)


def _has_bias(kind: str, name: str, config: Mapping[str, Any]) -> bool:
    if kind == "qwen2":
        return name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    if kind == "mistral":
        return False
    return bool(config.get("attention_bias" if name.startswith("self_attn") else "mlp_bias")) and (
        kind == "llama" or name.startswith("self_attn")
    )


def _encoder(kind: str, config: Mapping[str, Any]) -> Parameters:
    hidden, inner, layers = (
        int(config[f"{name}"]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    tables = {
        "embeddings.word_embeddings.weight": "vocab_size",
        "embeddings.position_embeddings.weight": "max_position_embeddings",
        "embeddings.token_type_embeddings.weight": "type_vocab_size",
    }
    needed: dict[str, Shape] = {name: (int(config[key]), hidden) for name, key in tables.items()}
    needed |= dict(_norm("embeddings.LayerNorm", hidden))
    for number in range(layers):
        layer = f"encoder.layer.{number}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            needed |= dict(_linear(f"{layer}.{name}", hidden, hidden))
        needed |= dict(_norm(f"{layer}.attention.output.LayerNorm", hidden))
        needed |= dict(_linear(f"{layer}.intermediate.dense", inner, hidden))
        needed |= dict(_linear(f"{layer}.output.dense", hidden, inner))
        needed |= dict(_norm(f"{layer}.output.LayerNorm", hidden))
    pooler = dict(_linear("pooler.dense", hidden, hidden))
    if not any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or []):
        return Parameters(_ENCODERS[kind], next(iter(tables)), needed, pooler)
    labels = int(config.get("num_labels", len(config.get("id2label") or "01")))
    if kind == "bert":
        return Parameters(
            _ENCODERS[kind], next(iter(tables)), needed | pooler | dict(_linear("classifier", labels, hidden)), {}
        )
    head = {**dict(_linear("classifier.dense", hidden, hidden)), **dict(_linear("classifier.out_proj", labels, hidden))}
    return Parameters(_ENCODERS[kind], next(iter(tables)), needed | head, {})


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _norm(name: str, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
