"""The token stream of a shard: opening, then the sections of its documents; and the tokens that ask a prompt after it.

    opening | section section … | closing  prompt  ending | the model's reply
    --------- stored memory ---- ------ never stored ------

In:  sections as (URI, title, text), prompts as text.
Out: token ids. Sections are tokenized one by one, so that the stream of a shard grows by appending.
Wrong: see `models.chat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from memorag_pipeline.models.chat import HOLE, ChatTokenizer
from memorag_pipeline.specs.values import Language

# Version of the stage `memorize`: to be raised when the stream or the memory made of it changes.
MEMORIZE_VERSION = 3

_READ = {
    "en": "Read the following documents and remember what they say. Questions about them come afterwards.\n\n",
    "zh": "请阅读以下文档并记住其内容，之后会有关于这些文档的提问。\n\n",  # noqa: RUF001
}
_DONE = {
    "en": "I have read the documents and remember them. What would you like to know?",
    "zh": "我已读完这些文档并记住了内容。您想了解什么？",  # noqa: RUF001
}


def common_prefix(some: Sequence[object], others: Sequence[object]) -> int:
    """How many elements two streams have in common at their beginning, such as tokens, contents or windows."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((number for number, (one, other) in pairs if one != other), min(len(some), len(others)))


def gist_tokens(window: int) -> int:
    """The maximum number of tokens of a window's summary, in memories of kind gist."""
    return max(32, window // 8)


def section_heading(uri: str, title: str | None) -> str:
    """The line that introduces a document: its title or, without one, its file name.

    A document that is only renamed or moved is so the same tokens.
    """
    return " ".join((title or "").split()) or PurePosixPath(uri).name


def render_section(uri: str, title: str | None, text: str) -> str:
    """A section as memorized: a heading for the document, then the text."""
    return f"# {section_heading(uri, title)}\n\n{text.strip()}\n\n"


@dataclass(frozen=True)
class StreamFormat:
    """The fixed tokens around a shard's sections and around a prompt, for one model and language."""

    tokenizer: ChatTokenizer
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    ending: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: ChatTokenizer, language: Language) -> StreamFormat:
        """The format of a model: its own chat template, with the documents in the first user turn."""
        opening, closing, ending = tokenizer.frame(
            [
                {"role": "user", "content": _READ[language] + HOLE},
                {"role": "assistant", "content": _DONE[language]},
                {"role": "user", "content": HOLE},
            ]
        )
        return cls(tokenizer, tuple(opening), tuple(closing), tuple(ending))

    def section(self, uri: str, title: str | None, text: str) -> list[int]:
        """Tokens of a section."""
        return self.tokenizer.plain(render_section(uri, title, text))

    def suffix(self, prompt: str) -> list[int]:
        """Tokens that follow a memory to ask `prompt`, up to where the model's reply begins."""
        return [*self.closing, *self.tokenizer.plain(prompt), *self.ending]
