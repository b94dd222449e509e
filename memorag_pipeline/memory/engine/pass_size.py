"""How large a pass is: bytes that a slot's activations take, and the most for one pass. Integers only.

In:  sizes of a decoder's layer.
Out: bytes.
"""

from __future__ import annotations

# On a GPU tens of thousands of slots fill the matrix units; a fixed number keeps passes, and so bits, the same.
GPU_PASS_BYTES = 8 * 2**30
_FLOAT32 = 4


def slot_activation_bytes(hidden: int, inner: int, query: int, key: int, width: int) -> int:
    """Bytes that a slot needs on a GPU at the widest point of a layer, a slight overestimate.

    `query` and `key` are the numbers of all heads together, `width` is bytes of a number.
    """
    widest = max(4 * hidden + 3 * inner, 4 * hidden + 3 * (query + 2 * key) + 4 * query)
    return widest * width + 2 * hidden * _FLOAT32
