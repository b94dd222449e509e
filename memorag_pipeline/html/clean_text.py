"""Texts of documents and of stored records, made fit to stand within a page.

In:  any text.
Out: text that ends where it ends: HTML can hold it, and it does not turn the direction of what follows.
"""

from __future__ import annotations

import re
import unicodedata

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text without marks of direction, and with a sign in place of characters that HTML cannot hold."""
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" else character
        for character in _DIRECTIONS.sub("", text)
    )
