"""The facts of a run, as its report holds them: small, of plain types, and the same for the same run.

In:  what `refresh` and `job` gather.
Out: `RunReport`, kept as JSON and rendered as a page.
Wrong: JSON of another form is a `ValidationError` of pydantic.

Texts of documents and answers are included unchanged: whatever displays them must escape them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.reports.known_stages import STAGES

FORMAT = 1
STATES = ("unchanged", "added", "modified", "removed")

_GPU = frozenset(name for name, stage in STAGES.items() if stage.gpu)

State = Literal["published", "unchanged", "answered", "summarized", "failed", "unfinished"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageFacts(_Facts):
    """A stage of the run.

    `units` is the number that the run planned (None if a stage has none or the plan is gone), `done` the number that it
    did itself; the others existed before. `seconds` is the total time of its tasks, `counts` the totals of their
    numbers.
    """

    stage: str
    tasks: int
    units: int | None = None
    done: int | None = None
    seconds: float = 0.0
    counts: dict[str, int] = {}


class FormatFacts(_Facts):
    """Source objects of one format (the ending of their names): added, modified, removed or unchanged since the parent
    version.

    `quarantined` of them are currently in quarantine, in any state.
    """

    format: str
    unchanged: int = 0
    added: int = 0
    modified: int = 0
    removed: int = 0
    quarantined: int = 0


class MemoryFacts(_Facts):
    """The memories of one kind of shard: the tokens they were read from, and their bytes."""

    kind: str
    memories: int
    tokens: int
    stale_tokens: int
    bytes: int


class BlobFacts(_Facts):
    """The blobs of one role in the version; `new_bytes` are those of blobs that the parent version does not have."""

    role: str
    blobs: int
    bytes: int
    new_bytes: int


class QuarantineFacts(_Facts):
    """The documents in quarantine for one reason: how many, some of them (URI and detail), and what to do."""

    reason: str
    documents: int
    advice: str
    some: tuple[tuple[str, str], ...] = ()


class ScoreFacts(_Facts):
    """A score of the version; `before` is that of the version that it was compared with, `change` the difference.

    Both are over the questions by which both versions can be scored. Reports of earlier releases have no `change`, and
    their `before` is a score of the last run.
    """

    name: str
    value: float
    before: float | None = None
    change: float | None = None


class ShownPassage(_Facts):
    """A passage that was offered for an answer, by characters of the document's text; `used` if the answer cites it."""

    uri: str
    start: int
    end: int
    score: float
    text: str
    used: bool = False


class SampleAnswer(_Facts):
    """One row of the answers, or of the summaries (`question` is what it is of), with its evidence, the best first.

    `purged`: the text is removed, since a document of its evidence was purged.
    """

    question: str
    status: str
    answer: str | None
    error: str | None
    clues: tuple[str, ...] = ()
    evidence: tuple[ShownPassage, ...] = ()
    purged: bool = False


class Problem(_Facts):
    """A task whose last attempt failed."""

    stage: str
    task: int
    attempt: int
    error: str


class RunReport(_Facts):
    """A run of a refresh (`job` is None) or of a job; `version` is the one that it made or worked on.

    Times are UTC; a run is ordered and named by `began_at`. `statuses` count all rows of a job, `carried_over` those of
    them that an earlier version's run had answered. `facts` are further lines of text for the head of the page, such as
    the models. `gate` says whether a channel was pointed to the version, and why; `compared_with` is the version whose
    scores are beside its own. `purged`: what was of documents that were purged later has been removed.
    """

    format: int = FORMAT
    corpus: str
    uri: str
    run_id: str
    job: str | None = None
    state: State
    began_at: datetime | None = None
    ended_at: datetime | None = None
    version: int | None = None
    parent: int | None = None
    counts: dict[str, int] = {}
    facts: dict[str, str] = {}
    stages: tuple[StageFacts, ...] = ()
    formats: tuple[FormatFacts, ...] = ()
    memories: tuple[MemoryFacts, ...] = ()
    blobs: tuple[BlobFacts, ...] = ()
    quarantine: tuple[QuarantineFacts, ...] = ()
    scores: tuple[ScoreFacts, ...] = ()
    compared_with: int | None = None
    gate: str | None = None
    cost: float | None = None
    statuses: dict[str, int] = {}
    carried_over: int = 0
    cut: int = 0
    samples: tuple[SampleAnswer, ...] = ()
    problems: tuple[Problem, ...] = ()
    purged: bool = False

    def stage(self, name: str) -> StageFacts | None:
        """The facts of one stage."""
        return next((stage for stage in self.stages if stage.stage == name), None)

    def total(self, state: str) -> int:
        """Source objects of all formats in one of `STATES`, or `quarantined`."""
        return sum(getattr(row, state) for row in self.formats)

    @property
    def device_seconds(self) -> float:
        """Seconds of the tasks of stages that use models, and run where the spec's `compute` block says."""
        return sum(stage.seconds for stage in self.stages if stage.stage in _GPU)

    @property
    def seconds(self) -> float | None:
        """From the beginning of the run to the end of its last task."""
        if self.began_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.began_at).total_seconds()
