"""A decoder loaded for reading streams and writing replies, once per process.

In:  a model reference, a revision, a dtype.
Out: a `LanguageModel` on the GPU when there is one, else on the CPU.
Wrong: an unknown model, or one whose attention is not what `attention` computes, is refused by name.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.attention import ATTENTION
from memorag_pipeline.memory.chat import ChatTokenizer
from memorag_pipeline.models import MODEL_TYPES, ResolvedModel, context_length, read_config, resolve


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder and what is known of it. `context` is in tokens; `end_ids` are the tokens that end a reply."""

    model: Any
    tokenizer: ChatTokenizer
    device: torch.device
    dtype: torch.dtype
    resolved: ResolvedModel
    context: int
    end_ids: frozenset[int]

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def kv_heads(self) -> int:
        """Key/value heads of a layer."""
        return int(self.model.config.num_key_value_heads)

    @property
    def head_size(self) -> int:
        """Numbers in one key."""
        config = self.model.config
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def load_language_model(model: str, revision: str | None = None, dtype: str = "bfloat16") -> LanguageModel:
    """The decoder that a reference names, with transformers' own classes; code that comes with a model is never run."""
    return _load(resolve(model, revision), dtype)


@functools.cache
def _load(resolved: ResolvedModel, dtype: str) -> LanguageModel:
    model_type = read_config(str(resolved.folder)).get("model_type")
    if model_type not in MODEL_TYPES:
        raise MemoragError(
            f"model {resolved.name}: models of type {model_type!r} are not supported;"
            f" use one of: {', '.join(MODEL_TYPES)}"
        )
    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = AutoModelForCausalLM.from_pretrained(
        resolved.folder,
        dtype=getattr(torch, dtype),
        attn_implementation=ATTENTION,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    loaded = loaded.to(device).eval().requires_grad_(False)
    tokenizer = ChatTokenizer(resolved.folder)
    return LanguageModel(
        model=loaded,
        tokenizer=tokenizer,
        device=device,
        dtype=getattr(torch, dtype),
        resolved=resolved,
        context=context_length(loaded.config.to_dict()),
        end_ids=_end_ids(loaded.generation_config.eos_token_id, loaded.config.eos_token_id, tokenizer.turn_end),
    )


def _end_ids(*found: int | list[int] | None) -> frozenset[int]:
    ids: set[int] = set()
    for value in found:
        if value is not None:
            ids.update([value] if isinstance(value, int) else value)
    return frozenset(ids)
