"""The header of a safetensors file: read without the tensors, or sorted.

In:  a path or URI; to be sorted, a file written by safetensors, which writes metadata in random order.
Out: the header; or the same file, changed in place, so that equal tensors and metadata give equal files.
Wrong: a missing file: `NotFoundError`; another format, or a truncated file: `CorruptBlobError`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memorag_pipeline.errors import CorruptBlobError, NotFoundError

_LARGEST = 100_000_000  # bytes; the limit of safetensors itself
_POINTER = b"version https://git-lfs"


def read_header(uri: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The header of the file at a path or URI: by name the dtype, shape and offsets of its tensors.

    Its metadata is under `__metadata__`. Raises NotFoundError, CorruptBlobError.
    """
    import fsspec

    place = uri if "://" in uri else str(Path(uri).expanduser())
    try:
        with fsspec.open(place, "rb", **(storage_options or {})) as file:
            beginning = file.read(8)
            length = int.from_bytes(beginning, "little")
            data = file.read(length if 0 < length <= _LARGEST else len(_POINTER))
            size = file.seek(0, 2)
    except Exception as error:  # every filesystem has its own kinds
        raise NotFoundError(
            f"{uri}: cannot be read ({type(error).__name__}); give the path or URI of a file, and check that it may be"
            " read"
        ) from error
    if (beginning + data).startswith(_POINTER):
        raise CorruptBlobError(
            f"{uri}: a pointer of Git LFS, and not the file itself; fetch it with `git lfs pull`, or from where it lies"
        )
    header = _parsed(data) if len(data) == length else None
    if header is None:
        raise CorruptBlobError(f"{uri}: not a safetensors file; give another, or fetch it again")
    end = (
        8
        + length
        + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    )
    if size != end:
        raise CorruptBlobError(f"{uri}: has {size:,} bytes of the {end:,} that its header tells; fetch it again")
    return header


def sort_header(path: Path) -> None:
    """Sort the header's keys."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        data = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(data.ljust(length))


def _parsed(data: bytes) -> dict[str, Any] | None:
    """The header in some bytes, if they are one."""
    try:
        header = json.loads(data)
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                if not (0 <= int(start) <= int(end)) or not all(int(size) >= 0 for size in entry["shape"]):
                    return None
                str(entry["dtype"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return header if isinstance(header, dict) else None
