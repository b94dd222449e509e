"""A point of a training's curve, as reports and plots show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class CurvePoint:
    """Training after `tokens` tokens: its loss (nats), and the share of the gap closed if that was measured."""

    tokens: int
    loss: float
    gap: float | None = None
