"""All kinds of memory, and what the rest of the program needs to know about each.

The command line reads this for its help, so that nothing heavy is imported here, not even pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KindTraits:
    """What the rest of the program needs to know about a kind of memory; its class is named in `memory/kinds/load.py`.

    `compresses`: fewer slots are kept than tokens are read, so that a ratio and a sink apply. `has_beacons`: it can be
    trained, and an adapter or a checkpoint defines its form. `several_ratios`: a ratio can be chosen from several, or
    be 0. `has_policy`: slots are chosen by `memory.policy`. `sink` is the default for untrained memories. `positions`
    says what takes positions of the model's context: each `token` of a stream, only the `slot`s that are kept, or the
    tokens of a `summary` of each window.
    """

    describes: str
    compresses: bool = False
    has_beacons: bool = False
    several_ratios: bool = False
    has_policy: bool = False
    sink: int = 0
    positions: Literal["token", "slot", "summary"] = "token"


KINDS: dict[str, KindTraits] = {
    "beacon": KindTraits(
        "compressed by trained beacons.", compresses=True, has_beacons=True, several_ratios=True, positions="slot"
    ),
    # Without a sink, models that were trained without one lose all that the other slots bring.
    "selected": KindTraits(
        "the most useful slots of each window, without training.", compresses=True, has_policy=True, sink=1
    ),
    "full": KindTraits("the plain KV cache of a long-context model."),
    "gist": KindTraits("the model's summaries instead of the text.", positions="summary"),
}


def kinds_with(trait: str) -> str:
    """The kinds that have a trait, for messages."""
    return " or ".join(kind for kind, traits in KINDS.items() if getattr(traits, trait))
