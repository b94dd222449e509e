"""Digests: SHA-256 of values, bytes and files, always as 64 hex characters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """`value` as JSON bytes that are the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def bytes_digest(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return bytes_digest(text.encode("utf-8", "surrogatepass"))


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return bytes_digest(canonical_json(value))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
