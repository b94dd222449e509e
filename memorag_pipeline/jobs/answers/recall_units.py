"""The units of stage recall: recalled clues are kept by question and memory.

In:  a version's manifest, and settings.
Out: the fingerprint of each question asked of each memory; the kept clues, or the memory's own answers.
Wrong: clues that have not been recalled yet are a `MemoragError` that says so.

A unit depends on the memory, not on the version: a version that still has the memory need not ask it again. It does not
depend on the other questions either, so only the new questions of a growing set are asked. Clues of several questions
share a blob; an answer of a memory is kept like a generator's reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.generators import replies as reply_units
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.jobs.answers.answer import Clue
from memorag_pipeline.jobs.answers.questions import question_identity
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.answers.stages import RECALL
from memorag_pipeline.storage import BlobRef, CorpusStore, Manifest, Outcome, fingerprint

STAGE = RECALL.outcomes
STAGE_VERSION = 2

Asked = tuple[str, str]  # shard id, text of a question
_DECODING = {"max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed"}


class RecallUnits:
    """The units of one version and its settings."""

    def __init__(self, manifest: Manifest, settings: AnswerSettings) -> None:
        self._settings = settings
        self._memories = manifest.memory_blobs
        model = manifest.model_of("memory").digest
        self._shared: dict[str, Any] = {
            "model": model,
            "language": settings.language,
            "prompts": settings.prompt_version,
        }
        if settings.from_memory:
            self._shared["decoding"] = settings.generation.model_dump(mode="json", include=_DECODING)
        else:
            self._shared |= {"clues": settings.clues, "clue_tokens": settings.clue_tokens}

    @property
    def stage(self) -> str:
        """The stage under which the outcomes are kept."""
        return reply_units.STAGE if self._settings.from_memory else STAGE

    def memory(self, shard_id: str) -> BlobRef:
        """The memory of a shard."""
        return self._memories[shard_id].ref

    def fingerprint(self, asked: Asked) -> str:
        """The fingerprint of one question asked of one memory."""
        shard_id, question = asked
        memory = self.memory(shard_id).digest
        return fingerprint(STAGE, STAGE_VERSION, memory=memory, question=question, **self._shared)

    def missing(self, store: CorpusStore, asked: Iterable[Asked]) -> list[Asked]:
        """The questions not yet recalled, each once."""
        distinct = list(dict.fromkeys(asked))
        outcomes = store.units.find_all(self.stage, [self.fingerprint(each) for each in distinct])
        return [each for each, outcome in zip(distinct, outcomes, strict=True) if outcome is None]

    def clues(self, store: CorpusStore, asked: Iterable[Asked]) -> dict[Asked, list[Clue]]:
        """The clues of questions, by shard and text."""
        found: dict[Asked, list[Clue]] = {}
        blobs: dict[BlobRef, list[Asked]] = {}
        for each, outcome in self._outcomes(store, asked).items():
            found[each] = []
            blobs.setdefault(outcome.blobs["clues"], []).append(each)
        for ref, members in blobs.items():
            wanted = {(shard_id, question_identity(text)): found[shard_id, text] for shard_id, text in members}
            for row in store.blobs.get_table(ref, name="clues of the job").to_pylist():
                if (kept := wanted.get((row["shard_id"], row["question_id"]))) is not None:
                    kept.append(Clue(row["shard_id"], row["kind"], row["text"]))
        return found

    def answers(self, store: CorpusStore, run: str, asked: Iterable[Asked]) -> dict[Asked, Reply]:
        """Answers of memories themselves, by shard and text."""
        keys = {each: self.fingerprint(each) for each in dict.fromkeys(asked)}
        kept = reply_units.ReplyUnits(store, run).find_all(list(keys.values()))
        for each, key in keys.items():
            if key not in kept:
                raise _not_recalled(each)
        return {each: kept[key] for each, key in keys.items()}

    def _outcomes(self, store: CorpusStore, asked: Iterable[Asked]) -> dict[Asked, Outcome]:
        distinct = list(dict.fromkeys(asked))
        outcomes = store.units.find_all(self.stage, [self.fingerprint(each) for each in distinct])
        found: dict[Asked, Outcome] = {}
        for each, outcome in zip(distinct, outcomes, strict=True):
            if outcome is None:
                raise _not_recalled(each)
            found[each] = outcome
        return found


def _not_recalled(asked: Asked) -> MemoragError:
    return MemoragError(f"shard {asked[0]}: its clues were not recalled yet; run recall first, then generate")
