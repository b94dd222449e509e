"""The facts of a job's run: from its task reports, its plan, and the answers of its batches.

In:  a corpus store and the task reports of one run of a job.
Out: a `RunReport`, with some answers and their evidence, and with some questions that could not be answered.
Wrong: what was swept is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from memorag_pipeline.reports.facts import Passage, RunReport, SampleAnswer, State
from memorag_pipeline.reports.stage_facts import problems, read_plan, result_of, span, stage_facts
from memorag_pipeline.runs.tasks import TaskReport
from memorag_pipeline.storage import CorpusStore, Outcome

STAGES = ("route", "recall", "generate", "load")
_READERS = 16
_ANSWERS, _UNANSWERED = 5, 5  # rows of a report
_TABLES = 5  # batches that are read for them, spread over the whole job
_LONGEST = 600  # characters of a passage, 3 times as many of an answer
_STATUSES = ("answered", "no_evidence", "errors")


def of_run(store: CorpusStore, corpus: str, job: str, reports: Sequence[TaskReport]) -> RunReport:
    """The report of a run of `job` from what its tasks said."""
    routed, loaded = result_of(reports, "route"), result_of(reports, "load")
    plan = read_plan(store, routed.get("plan"))
    outcomes = [] if plan is None else _outcomes(store, plan["batches"])
    failed = problems(reports)
    state: State = "answered" if loaded else "failed" if failed else "unfinished"
    costs = [cost for report in reports if isinstance(cost := report.result.get("cost"), int | float)]
    statuses: Counter[str] = Counter()
    for outcome in outcomes:
        statuses.update({name: outcome.counts.get(name, 0) for name in _STATUSES})
    answers = list(_answers(store, outcomes))
    models = {name.replace("_", " "): str(answers[0][name]) for name in ("generation_model",)} if answers else {}
    return RunReport(
        corpus=corpus,
        uri=store.uri,
        run_id=reports[0].run_id if reports else "",
        job=job,
        state=state,
        version=routed.get("version"),
        facts=models | ({"loaded into": str(loaded["warehouse"])} if loaded else {}),
        stages=stage_facts(
            store,
            reports,
            STAGES,
            _planned(plan),
        ),
        counts={"questions": sum(statuses.values())} if outcomes else {},
        statuses=dict(statuses),
        cost=sum(costs) if costs else None,
        samples=(
            *_some([row for row in answers if row["status"] == "answered"], _ANSWERS),
            *_some([row for row in answers if row["status"] != "answered"], _UNANSWERED),
        ),
        problems=failed,
        **span(reports),
    )


def _planned(plan: Any) -> dict[str, int]:
    """Units by stage, as far as the plan names them."""
    named = {} if plan is None else {"recall": plan.get("recalls"), "generate": plan["batches"]}
    return {stage: len(units) for stage, units in named.items() if units is not None}


def _outcomes(store: CorpusStore, fingerprints: Sequence[str]) -> list[Outcome]:
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda fingerprint: store.units.peek("generate", fingerprint), fingerprints)
        return [outcome for outcome in found if outcome is not None]


def _answers(store: CorpusStore, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """The rows of some batches: of those with errors first, else evenly from the first to the last."""
    spread = [outcomes[number * len(outcomes) // _TABLES] for number in range(min(_TABLES, len(outcomes)))]
    wrong = [outcome for outcome in outcomes if outcome.counts.get("errors") or outcome.counts.get("no_evidence")]
    for outcome in {each.fingerprint: each for each in (*spread, *wrong[:2])}.values():
        yield from store.blobs.get_table(outcome.blobs["answers"], name="answers").to_pylist()


def _some(rows: Sequence[dict[str, Any]], number: int) -> Iterator[SampleAnswer]:
    """So many of the rows, evenly from the first to the last."""
    for position in range(min(number, len(rows))):
        row = rows[position * len(rows) // min(number, len(rows))]
        yield SampleAnswer(
            question=row["question"],
            status=row["status"],
            answer=_cut(row["answer"], 3 * _LONGEST),
            error=row["error"],
            clues=tuple(clue["text"][:_LONGEST] for clue in row["clues"][:4]),
            evidence=tuple(
                Passage(
                    **{name: passage[name] for name in ("uri", "start", "end", "score")},
                    text=_cut(passage["text"], _LONGEST) or "",
                    used=passage.get("used", False),
                )
                for passage in sorted(row["evidence"], key=lambda passage: not passage.get("used", False))
            ),
        )


def _cut(text: str | None, longest: int) -> str | None:
    return text if text is None or len(text) <= longest else f"{text[:longest]}…"
