"""The in-process runner: a refresh costs what changed, resumes by unit, and shares its units with mapped tasks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import EmptyCorpusError, NotFoundError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.plans import ExtractList
from memorag_pipeline.refresh.shard import plan_shards
from memorag_pipeline.specs.corpus import CorpusSpec

REFRESH = ["inventory", "extract", "shard", "memorize", "embed", "index", "publish"]


@pytest.fixture
def pipeline(source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]) -> Pipeline:
    for path in sorted(source.iterdir())[4:]:
        path.unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question_id": "q1", "question": "What does assert do?"}) + "\n", encoding="utf-8")
    job = {
        "questions": {"uri": str(questions)},
        "warehouse": {"database": str(tmp_path / "answers.duckdb")},
        "clues": ["surrogates"],
        "clue_tokens": 16,
        "shards_per_question": 1,
    }
    return Pipeline(
        make_tiny_spec(source, jobs={"faq": job}, generation={"max_new_tokens": 16, "evidence_tokens": 256})
    )


def test_a_refresh_and_a_job_give_versions_rows_counts_and_seconds(pipeline: Pipeline, source: Path) -> None:
    first = runner.refresh(pipeline, "run-1")
    assert (first.version, first.created, first.changed, first.uri) == (1, True, True, pipeline.store.uri)
    assert list(first.counts) == list(first.seconds) == REFRESH
    assert first.counts["inventory"]["added"] == 4
    assert first.counts["extract"]["documents"] == 4
    # Each shard's stream has an opening before its documents.
    assert first.counts["memorize"]["memorized_tokens"] > first.counts["shard"]["tokens"] > 0
    assert first.counts["embed"]["embedded"] == first.counts["index"]["vectors"] > 0
    assert pipeline.store.versions.record(1).run_id == "run-1"

    again = runner.refresh(pipeline, "run-2")
    assert (again.version, again.created, again.changed) == (1, False, False)
    assert list(again.counts) == ["inventory"]

    answered = runner.answer(pipeline, "faq")
    assert (answered.version, answered.rows) == (1, 1)
    assert list(answered.counts) == list(answered.seconds) == ["route", "recall", "generate", "load"]
    assert "answers.duckdb" in answered.warehouse
    assert runner.answer(pipeline, "faq", 1).rows == 1

    changed = sorted(source.iterdir())[0]
    changed.write_text(changed.read_text(encoding="utf-8") + "\nOne more sentence.\n", encoding="utf-8")
    second = runner.refresh(pipeline, "run-3")
    assert (second.version, second.created, second.changed) == (2, True, True)
    assert second.counts["inventory"]["changed"] == 1
    assert 0 < second.counts["memorize"]["memorized_tokens"] < first.counts["memorize"]["memorized_tokens"]
    assert 0 < second.counts["embed"]["embedded"] < first.counts["embed"]["embedded"]


def test_a_run_without_its_last_stage_resumes_from_the_units_of_the_first(pipeline: Pipeline, tmp_path: Path) -> None:
    first = runner.refresh(pipeline, "run-1")
    manifest = pipeline.store.versions.record(1).manifest
    shutil.rmtree(tmp_path / "store" / "topics" / "versions")

    # What mapped tasks of one unit each would have to do: nothing is left for them.
    inventory = take_inventory(pipeline)
    assert inventory["changed"] and inventory["extract"] == []
    shards = plan_shards(pipeline, inventory["plan"])
    assert shards["memorize"] == shards["embed"] == []

    again = runner.refresh(pipeline, "run-2")
    assert (again.version, again.created) == (1, True)
    assert again.counts["extract"] == again.counts["memorize"] == again.counts["embed"] == {}
    assert again.counts["shard"]["tokens"] == first.counts["shard"]["tokens"]
    assert pipeline.store.versions.record(1).manifest == manifest


def test_a_large_corpus_is_worked_on_in_several_lists(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pipeline.spec.source.model_copy(update={"documents_per_part": 1})
    single = Pipeline(pipeline.spec.model_copy(update={"source": source}))
    assert len(take_inventory(runner._in_one_task(single))["extract"]) == 1
    monkeypatch.setattr(runner, "_UNITS_OF_A_LIST", 3)
    lists = take_inventory(runner._in_one_task(single))["extract"]
    assert [len(single.read_work(uri, ExtractList).units) for uri in lists] == [3, 1]


def test_an_empty_corpus_and_an_unknown_job_are_refused(pipeline: Pipeline, source: Path) -> None:
    with pytest.raises(NotFoundError, match="no job 'nightly'; its jobs: faq"):
        runner.answer(pipeline, "nightly")
    with pytest.raises(NotFoundError, match="no version"):
        runner.answer(pipeline, "faq")
    for path in source.iterdir():
        path.unlink()
    with pytest.raises(EmptyCorpusError):
        runner.refresh(pipeline, "run-1")
    assert pipeline.store.versions.newest() is None


def test_blobs_that_are_lost_are_made_anew_and_no_version_is_added(pipeline: Pipeline) -> None:
    runner.refresh(pipeline, "run-1")
    versions = pipeline.store.versions
    manifest = versions.manifest(1)
    for role in ("documents", "chunks", "memory", "embeddings", "index"):
        pipeline.store.objects.delete(manifest.of_role(role)[0].ref.key)
    assert len(versions.missing(manifest)) == 5

    repaired = runner.refresh(pipeline, "run-2")
    assert (repaired.version, repaired.created, repaired.changed) == (1, False, True)
    assert versions.missing(manifest) == []
