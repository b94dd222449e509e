"""Rotary position embedding: a table of cosines and sines for any positions, computed when it is needed.

In:  positions, and keys or queries before rotation.
Out: the rotated tensors, in their own dtype.
Wrong: a scaling whose frequencies change with the length of the text is refused: keys are rotated once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.engine import fused

_CHANGING = ("dynamic", "longrope")


class Rotation:
    """The rotation of one model: first half of a head paired with the second (RoFormer, arXiv 2104.09864)."""

    def __init__(self, decoder: Any) -> None:
        rotary = decoder.rotary_emb
        if getattr(rotary, "rope_type", "default") in _CHANGING:
            raise MemoragError(
                f"rope scaling {rotary.rope_type!r} changes the rotation of old keys as a text grows, and a memory"
                " rotates a key once; set rope_scaling to yarn, linear or llama3 in the model's config.json"
            )
        self.frequencies: Tensor = rotary.inv_freq.float()
        self.scaling: float = float(rotary.attention_scaling)

    def table(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of int positions [...], as [..., 1, head size / 2]: the axis of size 1 is for heads."""
        cosine, sine = self._angles(positions)
        return (cosine * self.scaling).to(dtype), (sine * self.scaling).to(dtype)

    def move(self, keys: Tensor, distance: Tensor) -> Tensor:
        """Rotated keys [slots, heads, head size], turned on by `distance` positions [slots]."""
        return rotate(keys.float(), self._angles(distance)).to(keys.dtype)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions.to(self.frequencies.device, torch.float32)[..., None, None] * self.frequencies
        return angles.cos(), angles.sin()


def rotate(states: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """`states` [..., heads, head size] rotated by a table of `Rotation`."""
    cosine, sine = table
    if states.dim() == 3 and cosine.shape[:2] == (len(states), 1) and fused.usable(states):
        return fused.rotate(states, cosine, sine)
    first, second = states.chunk(2, -1)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
    rotated = torch.empty(states.shape, dtype=states.dtype, device=states.device)
    out_first, out_second = rotated.chunk(2, -1)
    torch.mul(first, cosine, out=out_first).addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=out_second).addcmul_(first, sine)
    return rotated
