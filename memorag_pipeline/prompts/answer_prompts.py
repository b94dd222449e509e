"""The prompts of the jobs: a folder for each language, in it a YAML file for each purpose.

In:  a language of the spec; the user's own prompt texts, if the spec names any.
Out: `Prompts`: texts to ask a memory, and chat messages for answers; `version` changes whenever a prompt does.
Wrong: a language without a folder is a bug, since the spec only accepts those that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from memorag_pipeline.digests import value_digest
from memorag_pipeline.prompts.fence import fence_draft, fence_passages
from memorag_pipeline.prompts.language import prompt_language
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.prompts.texts import Texts, languages, own_words, texts_for

__all__ = ["Message", "Prompts", "load_prompts", "prompt_language"]


@dataclass(frozen=True)
class Prompts:
    """Prompt texts of one language; `recall_texts` by clue kind, `memory` for an answer from a memory alone.

    `draft` offers a generator a possible answer. `version` is a digest of the texts of all languages, for the language
    can differ from question to question.
    """

    language: str
    version: str
    recall_texts: Mapping[str, str]
    system: str
    user: str
    memory: str
    draft: str

    def recall(self, kind: str, question: str) -> str:
        """The prompt that asks a shard's memory for clues of `kind`."""
        return Template(self.recall_texts[kind]).substitute(question=question)

    def answer_from_memory(self, question: str) -> str:
        """The prompt that asks a shard's memory for an answer without any passage."""
        return Template(self.memory).substitute(question=question)

    def answer(self, question: str, passages: Sequence[str], draft: str | None = None) -> list[Message]:
        """Chat messages that ask for an answer from `passages`, which are fenced in the user turn.

        A `draft` of the answer, fenced too, follows them.
        """
        evidence = fence_passages(passages)
        if draft is not None:
            evidence += "\n\n" + Template(self.draft).substitute(draft=fence_draft(draft))
        user = Template(self.user).substitute(evidence=evidence, question=question)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def said(self, question: str) -> tuple[str, ...]:
        """What the prompts of an answer say in their own words, line by line, and the question."""
        texts = (self.system, self.user, self.memory, self.draft)
        return (question, *own_words(*texts, question=question))


def load_prompts(language: str, own: Texts | None = None) -> Prompts:
    """The prompts for `language`; texts in `own` (see `texts.read_own`) go before those of the package."""
    recall, answer = (texts_for(language, purpose, own) for purpose in ("recall", "answer"))
    every = [[texts_for(known, purpose, own) for purpose in ("recall", "answer")] for known in languages()]
    return Prompts(
        language=language,
        version=value_digest(every)[:12],
        recall_texts=recall,
        system=answer["system"],
        user=answer["user"],
        memory=answer["memory"],
        draft=answer["draft"],
    )
