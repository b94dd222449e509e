"""The prompts of the jobs, one YAML file for each language.

In:  a language of the spec.
Out: `Prompts`: texts to ask a memory, and chat messages for answers; `version` changes whenever a prompt does.
Wrong: a language without a file is a bug, since the spec only accepts those that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

import yaml

from memorag_pipeline.digests import value_digest
from memorag_pipeline.jobs.fence import fence_draft, fence_passages

Message = dict[str, str]  # {"role": "system" | "user", "content": …}, as chat templates take it


@dataclass(frozen=True)
class Prompts:
    """Prompt texts of one language; `recall_texts` by clue kind, `memory` for an answer from a memory alone.

    `draft` offers a generator a possible answer.
    """

    language: str
    version: str
    recall_texts: Mapping[str, str]
    system: str
    user: str
    memory: str
    draft: str

    def recall(self, kind: str, question: str) -> str:
        """What is asked of a shard's memory to get clues of `kind`."""
        return Template(self.recall_texts[kind]).substitute(question=question)

    def answer_from_memory(self, question: str) -> str:
        """What is asked of a shard's memory to get an answer without any passage."""
        return Template(self.memory).substitute(question=question)

    def answer(self, question: str, passages: Sequence[str], draft: str | None = None) -> list[Message]:
        """Chat messages that ask for an answer from `passages`, which stand fenced in the user turn.

        A `draft` of the answer, fenced too, follows them.
        """
        evidence = fence_passages(passages)
        if draft is not None:
            evidence += "\n\n" + Template(self.draft).substitute(draft=fence_draft(draft))
        user = Template(self.user).substitute(evidence=evidence, question=question)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


@cache
def load_prompts(language: str) -> Prompts:
    """The prompts for `language`; their version is a digest of all their texts."""
    texts = yaml.safe_load(files(__package__).joinpath(f"{language}.yaml").read_text(encoding="utf-8"))
    return Prompts(
        language=language,
        version=value_digest(texts)[:12],
        recall_texts=texts["recall"],
        system=texts["answer"]["system"],
        user=texts["answer"]["user"],
        memory=texts["answer"]["memory"],
        draft=texts["answer"]["draft"],
    )
