"""The settings and the result of decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from memorag_pipeline.specs.generation import GenerationSpec


@dataclass(frozen=True)
class Decoding:
    """How replies are written. Temperature 0 is greedy. A row's samples depend on `seed` and its prompt alone."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: GenerationSpec) -> Decoding:
        """As a spec wants its answers."""
        return cls(spec.max_new_tokens, spec.temperature, spec.top_p, spec.repetition_penalty, spec.seed)


@dataclass(frozen=True)
class Generation:
    """One reply. `text` ends before a stop string; `token_ids` are without the token that ends a turn.

    `finished` is "error" when the prompt could not be asked; `error` then says why, and the rest is empty.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finished: Literal["stop", "length", "error"]
    token_ids: tuple[int, ...]
    error: str | None = None


OnFinished = Callable[[int, Generation], None]
Advance = Callable[[int], None]
