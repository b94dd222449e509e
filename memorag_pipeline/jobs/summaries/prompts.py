"""The prompts of summaries, the file `summarize.yaml` of each language.

In:  a language of the spec, the focus of the summaries, if they have one, and the user's own prompts.
Out: `SummaryPrompts`: a text to ask a memory, and chat messages; `version` changes whenever a prompt of any focus does.
Wrong: a language without a file is a bug, since the spec only accepts those that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from memorag_pipeline.digests import value_digest
from memorag_pipeline.prompts.fence import fence_passages
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.prompts.texts import Texts, own_words, texts_for


@dataclass(frozen=True)
class SummaryPrompts:
    """Prompt texts of one language, for summaries with the same focus or without any."""

    texts: Mapping[str, str]
    focus: str | None

    @property
    def version(self) -> str:
        """A digest of all texts."""
        return value_digest(dict(self.texts))[:12]

    def key_points(self) -> str:
        """The prompt that asks a memory."""
        return self._filled("key_points")

    def summarize(self, passages: Sequence[str]) -> list[Message]:
        """Chat messages that ask for a summary of `passages`, which are fenced in the user turn."""
        return self._messages("user", passages)

    def merge(self, summaries: Sequence[str]) -> list[Message]:
        """Chat messages that ask for one summary instead of those of parts, which are fenced like passages."""
        return self._messages("merge", summaries)

    @property
    def said(self) -> tuple[str, ...]:
        """What the prompts of a summary say in their own words, line by line."""
        return tuple(own_words(*self.texts.values(), focus=self.focus or ""))

    def _messages(self, key: str, passages: Sequence[str]) -> list[Message]:
        user = self._filled(key, evidence=fence_passages(passages))
        return [{"role": "system", "content": self.texts["system"]}, {"role": "user", "content": user}]

    def _filled(self, key: str, **values: str) -> str:
        if self.focus is None:
            return Template(self.texts[key]).substitute(values)
        return Template(self.texts[f"{key}_focus"]).substitute(values, focus=self.focus)


def load_summary_prompts(language: str, focus: str | None, own: Texts | None = None) -> SummaryPrompts:
    """The prompts for `language`; texts in `own` go before those of the package."""
    return SummaryPrompts(texts_for(language, "summarize", own), focus)
