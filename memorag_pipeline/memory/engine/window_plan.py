"""Where the windows of one stream lie in a pass, for a kernel that attends to all of them at once.

In:  the windows, in order.
Out: the blocks of queries that its programs take, those with most keys first, so that none is left for the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from memorag_pipeline.memory.engine.transfer import to_device


class WindowPlan:
    """Where the windows of one stream are: made once for a pass, used in every layer.

    `windows` are the first packed slot, the slots and the slots of the memory before of each.
    """

    SIZES = (16, 32, 64, 128, 256)  # of heads

    def __init__(self, windows: Sequence[tuple[int, int, int]], size: int, device: torch.device) -> None:
        blocks = [
            (before + first, number, first)
            for number, (_, slots, before) in enumerate(windows)
            for first in range(0, slots, self.rows(size))
        ]
        blocks.sort(reverse=True)  # those with most keys
        self.blocks = to_device(torch.tensor([block[1:] for block in blocks], dtype=torch.int32), device)
        self.windows = to_device(torch.tensor(windows, dtype=torch.int32).T.contiguous(), device)

    @staticmethod
    def rows(size: int) -> int:
        """Slots of a block of queries."""
        return 128 if size <= 128 else 64
