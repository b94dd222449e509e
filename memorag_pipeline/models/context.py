"""Positions of a decoder: as many as its configuration says, or more by a rotation that a spec scales.

In:  the keys of config.json, unchanged or completed by transformers; the positions that a spec asks for.
Out: the number of positions; for a scaling that a spec adds a `Yarn`.
Wrong: a scaling over one that the configuration has, or to no more positions than there are: a `MemoryConfigError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.errors import MemoryConfigError

# Whose factor says how many times as long a text may be. That of llama3 does not: its configurations state the length.
_LENGTHENING = ("yarn", "linear")


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071): the rotation of `original` positions, spread over `factor` times as many."""

    factor: float
    original: int

    def __str__(self) -> str:
        """As memories and adapters record it."""
        return f"yarn {self.factor:g} of {self.original}"


def context_length(config: Mapping[str, Any]) -> int:
    """Positions that a decoder with this configuration can attend to in full: limited by a sliding window.

    A rope scaling that says how long the text was before it counts with its factor.
    """
    length = int(config["max_position_embeddings"])
    rope = rope_of(config)
    original = rope.get("original_max_position_embeddings") or (length if rope["rope_type"] == "yarn" else 0)
    if rope["rope_type"] in _LENGTHENING:
        length = max(length, int(float(rope.get("factor") or 1) * int(original)))
    window = config.get("sliding_window")
    return min(length, int(window)) if window and window_is_applied(config) else length


def window_is_applied(config: Mapping[str, Any]) -> bool:
    """Whether a sliding window is part of the model.

    A checkpoint with beacons may still have that of its base model, which its own attention never applied.
    """
    slides = "sliding_attention" in (config.get("layer_types") or ["sliding_attention"])
    return bool(slides and config.get("use_sliding_window", True) and not has_beacons(config))


def has_beacons(config: Mapping[str, Any]) -> bool:
    """Whether a configuration describes beacons."""
    return any(name.startswith("beacon_") for name in config)


def yarn_for(config: Mapping[str, Any], context: int) -> Yarn:
    """The scaling that gives a model `context` positions; in place of a YaRN that its configuration has.

    Raises MemoryConfigError.
    """
    rope = rope_of(config)
    original = int(config["max_position_embeddings"])
    if rope["rope_type"] == "yarn":
        original = int(rope.get("original_max_position_embeddings") or original)
    elif rope["rope_type"] != "default":
        raise MemoryConfigError(
            f"memory.rope_scaling yarn: the model's config.json has the rope scaling {rope['rope_type']} already;"
            " leave it out"
        )
    if context <= original:
        raise MemoryConfigError(
            f"memory.rope_scaling yarn: memory.context {context} is not more than the {original} positions that the"
            " model has without it; leave it out, or make memory.context larger"
        )
    return Yarn(context / original, original)


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rope scaling of a configuration by today's names, `rope_type` always among them."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found["rope_type"] = found.get("rope_type") or found.pop("type", None) or "default"
    return found
