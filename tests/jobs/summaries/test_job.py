"""Jobs of kind summaries from plan to rows: what is a row, what is done again, and what fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import duckdb
import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import MemoragError, NotFoundError
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.jobs.summaries.generate import summarize_parts
from memorag_pipeline.jobs.summaries.load import load_summaries
from memorag_pipeline.jobs.summaries.plan import plan_summaries
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.version import Version
from tests.jobs.summaries.conftest import TOPICS, write_source

MakePipeline = Callable[..., Pipeline]
Rows = list[dict[str, Any]]
RUN = Run("test", datetime(2026, 1, 1, tzinfo=UTC))


def rows_of(pipeline: Pipeline, job: str, version: int = 1) -> Rows:
    """The rows of a job in the warehouse, in order of URI."""
    query = "SELECT * FROM memorag.summaries WHERE job = ? AND corpus_version = ? ORDER BY uri"
    with duckdb.connect(pipeline.spec.job(job).warehouse.database, read_only=True) as connection:
        cursor = connection.execute(query, [job, version])
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [{**row, **{name: json.loads(row[name]) for name in ("include", "key_points", "evidence")}} for row in rows]


@pytest.fixture(scope="module")
def rows(summary_pipeline: Pipeline) -> Rows:
    runner.summarize(summary_pipeline, "each")
    return rows_of(summary_pipeline, "each")


def test_each_document_has_one_row_with_what_it_was_made_of(rows: Rows, summary_pipeline: Pipeline) -> None:
    assert sorted(Path(row["uri"]).stem for row in rows) == sorted(TOPICS)
    digests = {model.role: model.digest for model in summary_pipeline.store.versions.manifest(1).models}
    for row in rows:
        name = Path(row["uri"]).stem
        assert (row["scope"], row["status"], row["error"], row["focus"]) == ("document", "summarized", None, None)
        assert (row["summary_id"], row["documents"]) == (row["document_id"], 1)
        assert row["source_characters"] == len(topics[name])
        assert row["summary_characters"] == len(row["summary"]) > 0
        assert 0 < row["output_tokens"] < row["input_tokens"]
        assert digests["memory"] in row["memory_model"] and digests["embedding"] in row["embedding_model"]


def test_passages_are_numbered_and_quoted_from_the_document_itself(rows: Rows) -> None:
    for row in rows:
        text = topics[Path(row["uri"]).stem]
        if row["parts"] == 1:
            assert [passage["number"] for passage in row["evidence"]] == [*range(1, len(row["evidence"]) + 1)]
        for passage in row["evidence"]:
            assert passage["document_id"] == row["document_id"]
            assert text[passage["start"] : passage["end"]] == passage["text"]


def test_a_short_document_is_read_whole_and_a_long_one_by_parts(rows: Rows) -> None:
    by_name = {Path(row["uri"]).stem: row for row in rows}
    whole = by_name["await"]
    assert (whole["parts"], whole["key_points"]) == (1, [])
    read = "".join(passage["text"] for passage in whole["evidence"])
    assert "".join(read.split()) == "".join(topics["await"].split())
    # One call for each part, and at least one to merge them.
    assert by_name["try"]["parts"] > 2
    assert by_name["try"]["output_tokens"] > 16 * by_name["try"]["parts"]


def test_a_second_run_calls_no_model_and_gives_the_same_rows(rows: Rows, summary_pipeline: Pipeline) -> None:
    planned = plan_summaries(summary_pipeline, "each")
    assert (planned["recall"], planned["generate"], planned["merge"]) == ([], [], [])
    assert load_summaries(summary_pipeline, planned["plan"], RUN)["rows"] == len(rows)
    assert rows_of(summary_pipeline, "each") == rows


def test_only_changed_documents_are_summarized_in_the_next_version(tmp_path: Path, make_pipeline: MakePipeline) -> None:
    write_source(tmp_path)
    pipeline = make_pipeline(tmp_path, each={"include": ["*.rst"]})
    runner.refresh(pipeline, "first")
    runner.summarize(pipeline, "each")
    (tmp_path / "source" / "pass.rst").write_text(topics["pass"] + "\nIt is often seen in an empty class.\n")
    (tmp_path / "source" / "del.rst").write_text(topics["del"])
    (tmp_path / "source" / "await.rst").unlink()
    runner.refresh(pipeline, "second")
    counts = runner.summarize(pipeline, "each").counts
    assert counts["plan"]["summaries"] == 5
    first, second = (rows_of(pipeline, "each", version) for version in (1, 2))
    written = {row["document_id"]: row["seconds"] for row in first}
    kept = {Path(row["uri"]).stem for row in second if written.get(row["document_id"]) == row["seconds"]}
    assert kept == {"lambda", "nonlocal", "try"}
    assert (
        counts["generate"]["parts"]
        == counts["plan"]["to_summarize"]
        == sum(row["parts"] for row in second if Path(row["uri"]).stem in {"pass", "del"})
    )


def test_a_folder_is_summarized_as_one_with_a_focus(summary_pipeline: Pipeline, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(loops={"scope": "corpus", "include": ["loops/*"], "focus": "What ends a loop?"})
    runner.summarize(pipeline, "loops")
    (row,) = rows_of(pipeline, "loops")
    assert (row["scope"], row["document_id"], row["uri"], row["title"]) == ("corpus", None, None, None)
    assert (row["include"], row["focus"], row["documents"]) == (["loops/*"], "What ends a loop?", 2)
    assert {Path(passage["uri"]).parent.name for passage in row["evidence"]} <= {"loops"}


def test_a_document_that_fails_is_an_error_row_and_the_others_are_kept(
    summary_pipeline: Pipeline, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = LocalGenerator.reply

    def failing(self: LocalGenerator, conversations: Any, on_finished: Any = None) -> list[Reply]:
        found = reply(self, conversations, on_finished)
        bad = ["coroutine" in messages[1]["content"] for messages in conversations]
        return [Reply("", 1, 0, "cut off") if wrong else good for wrong, good in zip(bad, found, strict=True)]

    monkeypatch.setattr(LocalGenerator, "reply", failing)
    pipeline = make_pipeline(flaky={"include": ["*.rst"], "summary_tokens": 17})
    assert runner.summarize(pipeline, "flaky").counts["load"]["errors"] == 1
    errors = {Path(row["uri"]).stem: row["error"] for row in rows_of(pipeline, "flaky") if row["status"] == "error"}
    assert errors == {"await": "cut off"}


def test_what_cannot_be_planned_is_refused_before_any_work(
    summary_pipeline: Pipeline, make_pipeline: MakePipeline
) -> None:
    with pytest.raises(NotFoundError, match=r"no document of version 1 .* matches \*\.pdf"):
        plan_summaries(make_pipeline(none={"include": ["*.pdf"]}), "none")
    with pytest.raises(NotFoundError, match="has no job"):
        plan_summaries(summary_pipeline, "other")


def test_generate_before_recall_and_load_before_merge_are_refused(
    summary_pipeline: Pipeline, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(early={"include": ["lambda.rst", "try.rst"], "summary_tokens": 18, "recall_tokens": 18})
    planned = plan_summaries(pipeline, "early")
    assert planned["recall"] and planned["merge"]
    with pytest.raises(MemoragError, match="run recall first"):
        for uri in planned["generate"]:
            summarize_parts(pipeline, uri)
    with pytest.raises(MemoragError, match="run generate first"):
        load_summaries(pipeline, planned["plan"], RUN)


def test_a_service_gets_the_summary_of_a_job(summary_pipeline: Pipeline) -> None:
    version = Version(summary_pipeline.store, 1, trust_models=True)
    found = version.summarize("loops/break.rst", focus="Does it end a loop?")
    assert (found.status, found.scope, found.focus) == ("summarized", "document", "Does it end a loop?")
    assert version.summarize(found.uri, focus="Does it end a loop?").summary == found.summary
    with pytest.raises(NotFoundError, match=r"has no document break\.rst"):
        version.summarize("break.rst")
