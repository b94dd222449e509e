"""Putting text of documents into a prompt as data: fenced, and unable to close its fence.

Special tokens of the chat template, with which a text could end its turn, are no matter here: the tokenizer of a
conversation reads texts as plain characters (`memory.chat`). Evidence rows keep the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ANGLE = re.compile("[<\uff1c\ufe64\u2039\u276e\u3008\u2329\u27e8]")  # what is or looks like an opening bracket
_NAMES = ("passage", "draft")
_REACH = 64  # characters behind a bracket within which the name of a fence would begin and end


def fence_passages(passages: Sequence[str]) -> str:
    """The passages, numbered from 1, each between its opening and closing mark.

    Where a passage has such a mark itself, however spaced or written, its bracket becomes a round one.
    """
    return "\n".join(
        f"<passage {number}>\n{_without_marks(passage.strip())}\n</passage {number}>"
        for number, passage in enumerate(passages, 1)
    )


def fence_draft(draft: str) -> str:
    """A draft of an answer between its marks; like the passages, it may hold text of documents."""
    return f"<draft>\n{_without_marks(draft.strip())}\n</draft>"


def _without_marks(text: str) -> str:
    return _ANGLE.sub(lambda bracket: "(" if _names_a_fence(text, bracket.end()) else bracket[0], text)


def _names_a_fence(text: str, start: int) -> bool:
    """Whether the letters and digits from `start` on begin with a fence's name, whatever other signs are among them."""
    plain = unicodedata.normalize("NFKD", text[start : start + _REACH]).casefold()
    return "".join(filter(str.isalnum, plain)).startswith(_NAMES)
