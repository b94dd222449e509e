"""Putting text of documents into a prompt as data: fenced, and unable to close its fence.

Special tokens of the chat template, with which a text could end its turn, are no matter here: the tokenizer of a
conversation reads texts as plain characters (`memory.chat`). Evidence rows keep the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BREAK = "\u200b"  # zero-width space
_FENCE_MARK = re.compile(r"<(?=\s*/?\s*(?:passage|draft))", re.IGNORECASE)


def fence_passages(passages: Sequence[str]) -> str:
    """The passages, numbered from 1, each between its opening and closing mark."""
    return "\n".join(
        f"<passage {number}>\n{_FENCE_MARK.sub('<' + _BREAK, passage.strip())}\n</passage {number}>"
        for number, passage in enumerate(passages, 1)
    )


def fence_draft(draft: str) -> str:
    """A draft of an answer between its marks; like the passages, it may hold text of documents."""
    return f"<draft>\n{_FENCE_MARK.sub('<' + _BREAK, draft.strip())}\n</draft>"
