"""The header of a safetensors file with its keys in order, so that equal tensors and metadata give equal files.

In:  a file that safetensors wrote, which puts metadata in a random order.
Out: the same file, changed in place.
Wrong: what reading or writing the file raises.
"""

from __future__ import annotations

import json
from pathlib import Path


def sort_header(path: Path) -> None:
    """Put the header's keys in order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        data = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(data.ljust(length))
