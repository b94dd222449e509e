"""The texts that an adapter is measured by, while it is trained and afterwards: none of them is trained on."""

from __future__ import annotations

from typing import Any

from memorag_pipeline.specs.training import TrainingSpec


def held_out(spec: TrainingSpec, model: Any, count: int) -> list[list[int]]:
    """The first tokens of texts that are never trained on."""
    from memorag_pipeline.evaluation.gap import first_tokens
    from memorag_pipeline.training.data import held_out_texts

    tokenizer, tokens = model.tokenizer, text_tokens(model)
    texts = held_out_texts(spec, tokenizer, count, tokens)
    return first_tokens([tokenizer.plain(text) for text in texts], tokens)


def text_tokens(model: Any) -> int:
    """Tokens of the texts to measure by, the last quarter of which is asked; fewer than usual in a short context."""
    from memorag_pipeline.evaluation.gap import TOKENS

    return min(TOKENS, int(model.context))
