"""What the report of a job needs to know of its kind: its stages, its units, and where its rows are before they are
loaded.

In:  the plan of a run.
Out: units by stage; rows by status, and some of them.
Wrong: what was swept, or is not done yet, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from memorag_pipeline.jobs.answers.plans import AnswersPlan
from memorag_pipeline.jobs.answers.stages import ANSWERS, GENERATE
from memorag_pipeline.jobs.summaries.plans import PlannedTarget, SummariesPlan
from memorag_pipeline.jobs.summaries.stages import GENERATE as PART_SUMMARY
from memorag_pipeline.jobs.summaries.stages import MERGE, SUMMARIES
from memorag_pipeline.reports.facts import SampleAnswer, ShownPassage, State
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import Plan

_DONE, _FAILED = 5, 5  # rows of a report
_TABLES = 5  # batches that are read for them, spread over the whole job
_LONGEST = 600  # characters of a passage; three times as many of an answer or a summary

_Row = dict[str, Any]
_T = TypeVar("_T")
P = TypeVar("P", bound=Plan)


@dataclass(frozen=True)
class ReportRows:
    """Rows of a run by status, the good ones first, and some of them; `generation_model` is None if there are none.

    `cut` of the good ones end because they were as long as they may get. `carried_over` of all were answered before, in
    another version.
    """

    statuses: dict[str, int]
    samples: tuple[SampleAnswer, ...]
    generation_model: str | None
    cut: int = 0
    carried_over: int = 0


@dataclass(frozen=True)
class JobKind(Generic[P]):
    """A kind of jobs. The first of its stages plans, the last one loads; `done` is the state of a run that has ended.

    `rows` is the name of its rows, `read` reads the rows of a plan; None if there are none yet.
    """

    stages: tuple[Stage, ...]
    done: State
    rows: str
    read: Callable[[CorpusStore, P], ReportRows | None]


def kind_of(stages: Collection[str]) -> JobKind[Any]:
    """The kind of a run, by the stages that have started: the first one is enough."""
    return _SUMMARIES if SUMMARIES[0].name in stages else _ANSWERS


def _read_answers(store: CorpusStore, plan: AnswersPlan) -> ReportRows | None:
    outcomes = [outcome for outcome in store.units.peek_all(GENERATE.outcomes, plan.batches) if outcome is not None]
    if not outcomes:
        return None
    names = ("answered", "no_evidence", "errors")
    statuses = {name: sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in names}
    wrong = [outcome for outcome in outcomes if outcome.counts.get("errors") or outcome.counts.get("no_evidence")]
    chosen = {outcome.fingerprint: outcome for outcome in (*_spread(outcomes, _TABLES), *wrong[:2])}
    rows: list[_Row] = []
    for outcome in chosen.values():
        rows += store.blobs.get_table(outcome.blobs["answers"], name="answers").to_pylist()
    samples = _some(rows, "answered", lambda row: row["answer"], lambda row: row["question"], plan.best_last)
    cut, carried = (sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in ("cut", "carried_over"))
    return ReportRows(statuses, samples, str(rows[0]["generation_model"]) if rows else None, cut, carried)


def _read_summaries(store: CorpusStore, plan: SummariesPlan) -> ReportRows | None:
    from memorag_pipeline.jobs.summaries.load import summaries_of
    from memorag_pipeline.jobs.summaries.summary import row_of

    parts = list(plan.weights("parts"))
    found = dict(zip(parts, store.units.peek_all(PART_SUMMARY.outcomes, parts), strict=True))
    merged = dict(zip(plan.merges, store.units.peek_all(MERGE.outcomes, plan.merges), strict=True))
    good: list[PlannedTarget] = []
    bad: list[PlannedTarget] = []
    cut = 0
    for target in plan.targets:
        units = [found[unit] for unit in target.units]
        if any(outcome is None for outcome in units):
            continue
        failed = any(outcome.counts.get("errors") for outcome in units if outcome is not None)
        if target.merge is not None and not failed:
            outcome = merged[target.merge]
            if outcome is None:
                continue
            failed = bool(outcome.counts.get("errors"))
            units.append(outcome)
        (bad if failed else good).append(target)
        cut += not failed and any(outcome.counts.get("cut") for outcome in units if outcome is not None)
    if not good and not bad:
        return None
    chosen = [*_spread(good, _DONE), *_spread(bad, _FAILED)]
    rows = [row_of(summary, plan.columns) for summary in summaries_of(store, plan, chosen)]
    samples = _some(rows, "summarized", lambda row: row["summary"], _summarized)
    statuses = {"summarized": len(good), "errors": len(bad)}
    return ReportRows(statuses, samples, str(plan.columns["generation_model"]), cut)


def _summarized(row: _Row) -> str:
    """What a summary is of, in a line."""
    what = row["uri"] or ", ".join(row["include"])
    return what if row["focus"] is None else f"{what}: {row['focus']}"


_ANSWERS = JobKind(ANSWERS, "answered", "questions", _read_answers)
_SUMMARIES = JobKind(SUMMARIES, "summarized", "summaries", _read_summaries)


def _spread(values: Sequence[_T], number: int) -> list[_T]:
    """At most `number` of the values, evenly from the first to the last."""
    number = min(number, len(values))
    return [values[place * len(values) // number] for place in range(number)]


def _some(
    rows: Sequence[_Row],
    done: str,
    text: Callable[[_Row], str | None],
    asked: Callable[[_Row], str],
    best_last: bool | None = False,
) -> tuple[SampleAnswer, ...]:
    """Some rows whose status is `done`, then some of the others."""
    good = [row for row in rows if row["status"] == done]
    bad = [row for row in rows if row["status"] != done]
    return tuple(
        SampleAnswer(
            question=asked(row),
            status=row["status"],
            answer=_cut(text(row), 3 * _LONGEST),
            error=row["error"],
            clues=tuple(_recalled(row)),
            evidence=tuple(_passages(row["evidence"], bool(best_last))),
        )
        for row in (*_spread(good, _DONE), *_spread(bad, _FAILED))
    )


def _recalled(row: _Row) -> Iterator[str]:
    """The first clues of an answer, or key points of a summary."""
    for clue in row["clues"][:4] if "clues" in row else row["key_points"][:4]:
        yield (clue if isinstance(clue, str) else clue["text"])[:_LONGEST]


def _passages(evidence: Sequence[_Row], best_last: bool) -> Iterator[ShownPassage]:
    """The passages, the best one first: those that the text uses, then by rank.

    Read with `best_last` their order is the ranking from its end; in any other order it says nothing of them, and the
    score does.
    """
    ranked = list(reversed(evidence)) if best_last else sorted(evidence, key=lambda passage: -passage["score"])
    for passage in sorted(ranked, key=lambda passage: not passage.get("used", False)):
        yield ShownPassage(
            **{name: passage[name] for name in ("uri", "start", "end", "score")},
            text=_cut(passage["text"], _LONGEST) or "",
            used=passage.get("used", False),
        )


def _cut(text: str | None, longest: int) -> str | None:
    return text if text is None or len(text) <= longest else f"{text[:longest]}…"
