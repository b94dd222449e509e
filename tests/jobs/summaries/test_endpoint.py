"""Summaries by an endpoint, of Chinese documents, within a budget; and a version that is retired on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from memorag_pipeline import runner
from memorag_pipeline.jobs.summaries.generate import summarize_parts
from memorag_pipeline.jobs.summaries.load import load_summaries
from memorag_pipeline.jobs.summaries.plan import plan_summaries
from memorag_pipeline.pipeline import Pipeline
from tests.generators.chat_server import ChatServer, Response, completion, well
from tests.generators.conftest import server  # noqa: F401 - a fixture
from tests.jobs.summaries.test_job import RUN, rows_of

MakePipeline = Callable[..., Pipeline]
CHINESE = {
    "桥": "这座石桥建于一九二三年\uff0c长一百二十米\uff0c连接河的两岸。每年春天\uff0c河水上涨\uff0c桥面要关闭两周。",
    "塔": "灯塔高四十米\uff0c夜里每十秒亮一次。守塔的人住在旁边的小屋里\uff0c每天记录风和海浪。",
}


def by_endpoint(url: str, **endpoint: Any) -> dict[str, Any]:
    values = {"base_url": url, "retries": 0, "concurrency": 1, **endpoint}
    return {"model": "m", "endpoint": values, "evidence_tokens": 2000}


def test_a_budget_that_runs_out_leaves_rows_that_the_next_run_writes(
    summary_pipeline: Pipeline,
    make_pipeline: MakePipeline,
    server: ChatServer,  # noqa: F811
) -> None:
    def job(budget: float) -> Pipeline:
        prices = {"prices": {"input": 100.0, "output": 100.0}, "budget_cost": budget}
        documents = ["await.rst", "pass.rst", "nonlocal.rst", "loops/break.rst"]
        return make_pipeline(generation=by_endpoint(server.url, **prices), paid={"include": documents})

    first = runner.summarize(job(0.03), "paid")  # what a request may cost at most is set aside before it is sent
    asked = len(server.seen)
    assert 0 < asked < 4 and first.rows == 4
    landed = rows_of(job(5.0), "paid")
    assert sorted(row["status"] for row in landed) == ["error"] * (4 - asked) + ["summarized"] * asked
    assert all("generation.endpoint.budget_cost" in row["error"] for row in landed if row["status"] == "error")
    runner.summarize(job(5.0), "paid")
    assert len(server.seen) == len(set(server.questions)) == 4
    assert {row["status"] for row in rows_of(job(5.0), "paid")} == {"summarized"}


def test_a_reply_without_text_is_an_error_row(
    summary_pipeline: Pipeline,
    make_pipeline: MakePipeline,
    server: ChatServer,  # noqa: F811
) -> None:
    server.answer = lambda seen, attempt: (
        Response(completion("")) if "null operation" in seen.question else well(seen, attempt)
    )
    pipeline = make_pipeline(generation=by_endpoint(server.url), silent={"include": ["await.rst", "pass.rst"]})
    runner.summarize(pipeline, "silent")
    found = {Path(row["uri"]).stem: row for row in rows_of(pipeline, "silent")}
    assert (found["await"]["status"], found["pass"]["status"]) == ("summarized", "error")
    assert found["pass"]["error"]


def test_a_cut_summary_is_told_and_a_thought_is_none(
    summary_pipeline: Pipeline,
    make_pipeline: MakePipeline,
    server: ChatServer,  # noqa: F811
) -> None:
    server.answer = lambda seen, attempt: Response(
        completion("<think>no</think>Nothing happens", "length")
        if "null operation" in seen.question
        else completion("<think>no", "length")
    )
    pipeline = make_pipeline(generation=by_endpoint(server.url), thought={"include": ["await.rst", "pass.rst"]})
    counts = runner.summarize(pipeline, "thought").counts["generate"]
    assert (counts["errors"], counts["cut"]) == (1, 1)
    thought, cut = sorted(rows_of(pipeline, "thought"), key=lambda row: row["status"])
    assert (cut["summary"], cut["finish_reason"]) == ("Nothing happens", "length")
    assert (thought["summary"], thought["finish_reason"]) == (None, "length")
    assert "only a thought" in thought["error"]


def test_chinese_documents_are_summarized_in_chinese(
    tmp_path: Path,
    make_pipeline: MakePipeline,
    server: ChatServer,  # noqa: F811
) -> None:
    (tmp_path / "source").mkdir()
    for name, text in CHINESE.items():
        (tmp_path / "source" / f"{name}.txt").write_text(text, encoding="utf-8")
    server.answer = lambda seen, attempt: Response(completion("石桥长一百二十米[1]。"))
    pipeline = make_pipeline(tmp_path, generation=by_endpoint(server.url), language="zh", each={})
    runner.refresh(pipeline, "tests")
    runner.summarize(pipeline, "each")
    assert len(server.seen) == len(CHINESE)
    for seen, text in zip(sorted(server.seen, key=lambda seen: seen.question), sorted(CHINESE.values()), strict=True):
        assert "摘要" in str(seen.body["messages"]) and "Summarize" not in str(seen.body)
        assert text in seen.question
    for row in rows_of(pipeline, "each"):
        assert row["summary"].startswith("石桥长一百二十米")
        assert row["summary_characters"] == len(row["summary"])


def test_a_version_that_is_retired_after_the_plan_is_summarized_to_the_end(
    summary_pipeline: Pipeline, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "pass.rst").write_text("The pass statement does nothing.", encoding="utf-8")
    pipeline = make_pipeline(tmp_path, each={})
    runner.refresh(pipeline, "first")
    planned = plan_summaries(pipeline, "each")
    (tmp_path / "source" / "pass.rst").write_text("The pass statement still does nothing.", encoding="utf-8")
    runner.refresh(pipeline, "second")
    pipeline.store.versions.retire(1, "test", "to see a run that has begun end")
    for uri in planned["generate"]:
        summarize_parts(pipeline, uri)
    assert load_summaries(pipeline, planned["plan"], RUN)["rows"] == 1
    assert [row["status"] for row in rows_of(pipeline, "each", 1)] == ["summarized"]
