"""Cleaning texts of documents and of stored records for display within a page.

In:  any text.
Out: text that HTML can hold, and that does not change the direction of the text after it.
"""

from __future__ import annotations

import re
import unicodedata

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text without direction marks, and with a replacement for characters that HTML cannot hold."""
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" else character
        for character in _DIRECTIONS.sub("", text)
    )
