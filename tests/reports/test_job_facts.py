"""Which passages of an answer a report shows first: the best ones, however the generator read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline.jobs.answers.plans import AnswersPlan
from memorag_pipeline.reports.job_facts import of_run
from memorag_pipeline.reports.page import run_page
from memorag_pipeline.runs.tasks import Run, TaskReport
from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.storage import CorpusStore, Outcome
from memorag_pipeline.storage.plans import write_plan

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "store" / "topics"))


def passages(
    store: CorpusStore,
    plan: Mapping[str, Any],
    scores: Mapping[str, float],
    used: Sequence[str],
    cut: int = 0,
) -> str:
    """The page of a run with one answer whose evidence is in the order of `scores`."""
    counts = {"answered": 1, "cut": cut}
    evidence = [
        {
            "number": number,
            "used": text in used,
            "chunk_id": text,
            "document_id": "d",
            "uri": f"{text}.txt",
            "start": number,
            "end": number + 1,
            "score": score,
            "text": text,
            "also_in": [],
        }
        for number, (text, score) in enumerate(scores.items(), 1)
    ]
    values: dict[str, Any] = dict.fromkeys(ANSWERS.names, "x") | dict.fromkeys(
        ("corpus_version", "answered_version", "input_tokens", "output_tokens", "cost", "seconds"), 1
    )
    row = values | {"status": "answered", "error": None, "clues": [], "evidence": evidence}
    table = store.blobs.put_table(pa.Table.from_pylist([row], schema=ANSWERS))
    store.units.record(
        Outcome(stage="generate", fingerprint="f" * 64, blobs={"answers": table}, counts=counts, seconds=1.0)
    )
    others: dict[str, Any] = {
        "job": "faq",
        "version": 1,
        "todo": [],
        "manifest": table,
        "questions": table,
        "prompt_version": "0",
    }
    uri = write_plan(store.blobs, AnswersPlan(batches=("f" * 64,), **others, **plan))
    routed = TaskReport(
        run_id="r",
        stage="route",
        number=0,
        attempt=1,
        worker="w",
        state="done",
        began_at=BEGAN,
        beat_at=BEGAN,
        beat_seconds=5,
        result={"plan": uri, "version": 1},
    )
    report = of_run(store, "topics", Run("r", BEGAN, "faq"), [routed])
    assert {passage.text for passage in report.samples[0].evidence} == set(scores)
    return run_page(report)


def first_shown(page: str) -> str:
    """The passage that is seen without a click."""
    return page.partition("<blockquote>")[2].partition("</p>")[0].rpartition(">")[2]


def test_the_best_passage_is_seen_first_where_the_generator_read_it_last(store: CorpusStore) -> None:
    assert first_shown(passages(store, {"best_last": True}, {"worst": 0.2, "good": 0.5, "best": 0.7}, ())) == "best"


def test_a_rerankers_order_counts_more_than_the_score(store: CorpusStore) -> None:
    assert first_shown(passages(store, {"best_last": True}, {"worst": 0.9, "best": 0.7}, ())) == "best"


def test_in_the_order_of_the_documents_the_score_tells(store: CorpusStore) -> None:
    scores = {"first": 0.2, "best": 0.9, "last": 0.5}
    assert first_shown(passages(store, {"best_last": False}, scores, ())) == "best"


def test_a_plan_of_an_earlier_release_goes_by_the_score(store: CorpusStore) -> None:
    assert first_shown(passages(store, {}, {"worst": 0.2, "best": 0.9}, ())) == "best"


def test_of_cited_passages_the_best_comes_before_all_others(store: CorpusStore) -> None:
    scores = {"cited": 0.1, "better cited": 0.4, "not cited": 0.8}
    used = ("cited", "better cited")
    assert first_shown(passages(store, {"best_last": True}, scores, used)) == "better cited"


@pytest.mark.parametrize("cut", [0, 1])
def test_the_page_counts_answers_that_were_cut(store: CorpusStore, cut: int) -> None:
    page = passages(store, {}, {"best": 0.9}, (), cut)
    assert ("as long as they may get" in page) == bool(cut)
