"""The results for one question: an answer, for a service or as a row of the answers table, or what memories recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal

import pyarrow as pa

from memorag_pipeline.jobs.citations import CitedBy
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.schemas import ANSWERS, EVIDENCE

_PASSAGE = [field.name for field in EVIDENCE if field.name not in ("number", "used")]


@dataclass(frozen=True)
class Clue:
    """A line that a shard's memory recalled for a question; `kind` is spans, surrogates or draft."""

    shard_id: str
    kind: str
    text: str


@dataclass(frozen=True)
class Recollection:
    """The clues that a version's memories recall for one question, those of the best shard first.

    `shard_ids` are the shards that were asked, best first; `error` says why none was.
    """

    question_id: str
    question: str
    error: str | None
    shard_ids: tuple[str, ...] = ()
    clues: tuple[Clue, ...] = ()


@dataclass(frozen=True, repr=False)
class Answer:
    """The result for one question.

    `status` is answered, no_evidence (nothing was found to answer from) or error; only the first has an `answer`, the
    other two have an `error` that says why. A reply that only repeats its prompt is an error. `finish_reason` is why
    the reply ended, `length` if it was cut; None if unknown. Token counts and `cost` (with an endpoint that has prices)
    are those of the generator, now or, if `reused`, when the reply was written; `seconds` is the question's share of
    the time of its batch. An error that is `unfinished` may not recur, so the next run asks again. An answer from a
    memory only has no clues and no evidence, but the `shard_id` of the memory.

    `evidence` are the passages offered to the generator, in the order of their numbers in the prompt, from 1; `used`
    are the numbers of the passages that the answer rests on, and `cited_by` how that is known (see `citations`).
    """

    question_id: str
    question: str
    status: Literal["answered", "no_evidence", "error"]
    answer: str | None
    error: str | None
    clues: tuple[Clue, ...] = ()
    evidence: tuple[Passage, ...] = ()
    used: tuple[int, ...] = ()
    cited_by: CitedBy | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    shard_id: str | None = None
    cost: float | None = None
    reused: bool = False
    unfinished: bool = False
    finish_reason: str | None = None

    @property
    def cut(self) -> bool:
        """Whether the answer was cut at its maximum length."""
        return self.status == "answered" and self.finish_reason == "length"

    def __repr__(self) -> str:
        question, reply = (
            shorten(text or "", 60, placeholder=" …") for text in (self.question, self.answer or self.error)
        )
        return f"<Answer {self.status} {question!r}: {reply!r}, {len(self.used)} of {len(self.evidence)} passages used>"


def answer_table(answers: Sequence[Answer], columns: Mapping[str, Any]) -> pa.Table:
    """A table of `schemas.ANSWERS`; `columns` are the values that all rows share (corpus, job, version, models)."""
    rows = []
    for answer in answers:
        row = asdict(answer)
        row["evidence"] = [
            {"number": number, "used": number in answer.used, **{name: passage[name] for name in _PASSAGE}}
            for number, passage in enumerate(row["evidence"], 1)
        ]
        rows.append({**row, "memory_shard_id": answer.shard_id, **columns})
    return pa.Table.from_pylist(rows, schema=ANSWERS)
