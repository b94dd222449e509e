"""A GGUF file of a Llama of one layer with random weights, under a tokenizer of SmolLM2's kind with 261 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

from memorag_pipeline.models import references

_SIZE, _HEADS = 64, 2
_SHAPE = {
    "llama.block_count": 1,
    "llama.embedding_length": _SIZE,
    "llama.feed_forward_length": _SIZE,
    "llama.attention.head_count": _HEADS,
    "llama.attention.head_count_kv": _HEADS,
    "llama.rope.dimension_count": _SIZE // _HEADS,
}
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_tiny_gguf(path: Path) -> None:
    """Write the file, quantized as the package's model is: Q4_1, embeddings in Q8_0."""
    fields = GGUFReader(references._package_path("package:smollm2-135m-instruct")).fields
    tokens = [*_SPECIAL, *sorted(bytes_to_unicode().values()), "th", "the"]
    replaced: dict[str, Any] = {
        **_SHAPE,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(_SPECIAL) + [1] * (len(tokens) - len(_SPECIAL)),
        "tokenizer.ggml.merges": ["t h", "th e"],
    }
    writer = GGUFWriter(path, "llama")
    for name, field in fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        value = replaced[name] if name in replaced else field.contents()
        writer.add_key_value(name, value, kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    random = np.random.default_rng(3)
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {f"blk.0.{name}.weight": (_SIZE, _SIZE) for name in square} | {"token_embd.weight": (len(tokens), _SIZE)}
    for name, shape in shapes.items():
        kind = GGMLQuantizationType.Q8_0 if name == "token_embd.weight" else GGMLQuantizationType.Q4_1
        weights = quantize(random.normal(0, 0.1, shape).astype(np.float32), kind)
        writer.add_tensor(name, weights, raw_dtype=kind)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(_SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
