"""Putting text of documents into a prompt as data: fenced, and unable to close its fence.

Special tokens of the chat template, with which a text could end its turn, are made harmless elsewhere: for a local
model by its tokenizer (`models.chat`), for an endpoint by `chat_marks`. Evidence rows keep the original text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from unicodedata import category

from memorag_pipeline.prompts.look_alikes import seen, with_round_brackets

_NAMES = ("passage", "draft")
_FENCE = re.compile(rf"</?\s*(?:{'|'.join(_NAMES)})\s*(?:\d+\s*)?(?:>\s*|\Z)")
_CUT = re.compile(r"^</?[ \t]*([a-z]*)\Z", re.MULTILINE)  # the beginning of a mark where a reply was cut


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


def without_fences(text: str) -> str:
    """What a generator wrote, without the marks of its prompt, which small models repeat."""
    text = _FENCE.sub("", text).strip()
    cut = _CUT.search(text, text.rfind("\n") + 1)
    return text[: cut.start()].strip() if cut and any(name.startswith(cut[1]) for name in _NAMES) else text


def _without_marks(text: str) -> str:
    """A bracket becomes round if the letters and digits after it begin with a fence's name, ignoring other
    characters."""
    plain, places = seen(text)
    brackets = [place for place, character in enumerate(plain) if character == "<"]
    if not brackets:
        return text
    letters = [place for place, character in enumerate(plain) if _is_letter(character)]
    word = "".join(plain[place] for place in letters)
    return with_round_brackets(
        text, {places[bracket] for bracket in brackets if word.startswith(_NAMES, bisect_right(letters, bracket))}
    )


def _is_letter(character: str) -> bool:
    # Letters that modify others, such as apostrophes and stress marks, are ignored.
    return character.isalnum() and category(character) != "Lm"
