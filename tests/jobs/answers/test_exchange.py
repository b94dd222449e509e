"""Prompts out to a file of batch lines, and the results of another program back into rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from memorag_pipeline import runner
from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.warehouse import open_warehouse
from tests.generators.chat_server import PROMPT_TOKENS, REPLY_TOKENS, ChatServer, completion

PRICES = {"input": 100.0, "output": 100.0}
Lines = list[dict[str, Any]]
Job = Callable[..., Pipeline]


@pytest.fixture
def job(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], request: pytest.FixtureRequest) -> Job:
    """A job of its own for each test, of an endpoint that nobody can reach."""
    mark = request.node.name
    questions = [{"question_id": f"q{n}", "question": f"What does pass do, number {n} of {mark}?"} for n in range(4)]

    def make(url: str = "http://cluster.invalid/v1", more: int = 0, **generation: Any) -> Pipeline:
        asked = [*questions, *({"question_id": f"m{n}", "question": f"Why, {n} {mark}?"} for n in range(more))]
        values = {"model": "m", "endpoint": {"base_url": url, "prices": PRICES}, "max_new_tokens": 5, **generation}
        return make_pipeline(asked, generation=values, clues=[], evidence=1)

    return make


def exported(pipeline: Pipeline, path: Path) -> Lines:
    found = runner.export_prompts(pipeline, "faq", path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert found.prompts == len(lines)
    return lines


def result(line: dict[str, Any], body: Any = None, status: int = 200, **values: Any) -> dict[str, Any]:
    """What `vllm run-batch` writes for a request."""
    said = completion("It does nothing [1].") if body is None else body
    response = {"status_code": status, "request_id": "r", "body": said}
    return {"id": "vllm-1", "custom_id": line["custom_id"], "response": response, "error": None, **values}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def rows(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    questions = {row["question"] for row in _asked(pipeline)}
    table = open_warehouse(pipeline.spec.job("faq").warehouse).query("SELECT * FROM memorag.answers")
    return {row["question_id"]: row for row in table.to_pylist() if row["question"] in questions}


def _asked(pipeline: Pipeline) -> Lines:
    questions = pipeline.spec.job("faq").questions
    assert questions is not None
    return [json.loads(line) for line in Path(str(questions.uri)).read_text().splitlines()]


def test_the_prompts_are_those_an_endpoint_would_be_sent(job: Job, server: ChatServer, tmp_path: Path) -> None:
    lines = exported(job(server.url), tmp_path / "out.jsonl")
    assert not server.seen
    runner.answer(job(server.url), "faq")
    key = lambda body: json.dumps(body, sort_keys=True)  # noqa: E731
    assert sorted(key(line["body"]) for line in lines) == sorted(key(seen.body) for seen in server.seen)
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert len({line["custom_id"] for line in lines}) == 4
    assert exported(job(server.url), tmp_path / "out.jsonl") == []  # all of them have a reply


def test_results_become_rows_as_if_the_endpoint_had_replied(job: Job, tmp_path: Path) -> None:
    pipeline = job(repetition_penalty=1.1)
    lines = exported(pipeline, tmp_path / "out.jsonl")
    assert lines[0]["body"]["repetition_penalty"] == 1.1 and "extra_body" not in lines[0]["body"]
    path = write(tmp_path / "results.jsonl", [result(line) for line in reversed(lines)])
    done = runner.answer(pipeline, "faq", results=path)
    counts = done.counts["generate"]
    assert (counts["answered"], counts["errors"], counts["reused"]) == (4, 0, 0)
    assert counts["cost"] == pytest.approx(4 * (PROMPT_TOKENS + REPLY_TOKENS) * 100 / 1e6)
    found = rows(pipeline)["q0"]
    assert (found["answer"], found["cited_by"]) == ("It does nothing [1].", "markers")
    assert found["generation_model"] == "m at http://cluster.invalid/v1"
    # The replies are units: a job with one question more exports that one only, and needs no results for the others.
    (new,) = exported(job(repetition_penalty=1.1, more=1), tmp_path / "more.jsonl")
    assert "Why, 0" in new["body"]["messages"][-1]["content"]


def test_lines_that_are_missing_or_errors_are_rows_that_say_so(job: Job, tmp_path: Path) -> None:
    pipeline = job()
    first, second, third, _ = lines = exported(pipeline, tmp_path / "out.jsonl")
    too_long = {"error": {"message": "This model's maximum context length is 10 tokens", "code": None}}
    results = [
        "{broken",
        result(second, too_long, 400),
        result(third, None, response=None, error={"code": "x", "message": "the worker died"}),
        result(first),
        result(first, completion("another answer")),
        result(first, {"error": {"message": "late"}}, 500),
        {"custom_id": "someone-else", "response": None},
        [],
    ]
    path = write(tmp_path / "results.jsonl", results)
    counts = runner.answer(pipeline, "faq", results=path).counts["generate"]
    assert (counts["answered"], counts["errors"], counts["unfinished"]) == (1, 3, 2)
    by_line = {line["body"]["messages"][-1]["content"]: line["custom_id"] for line in lines}
    found = {by_line[text]: row for row in rows(pipeline).values() for text in by_line if row["question"] in text}
    errors = {key: row["error"] for key, row in found.items() if row["error"]}
    assert found[first["custom_id"]]["answer"] == "It does nothing [1]."
    assert "too long for the model" in errors[second["custom_id"]]
    assert errors[third["custom_id"]] == "the batch did not answer: the worker died"
    assert f"{path} has no line for it" in errors[lines[3]["custom_id"]]
    # Those that may be answered are exported again; what has its reply is not.
    again = {line["custom_id"] for line in exported(pipeline, tmp_path / "again.jsonl")}
    assert {third["custom_id"], lines[3]["custom_id"]} <= again and first["custom_id"] not in again


def test_an_error_does_not_hide_the_answer_of_another_line(job: Job, tmp_path: Path) -> None:
    pipeline = job()
    lines = exported(pipeline, tmp_path / "out.jsonl")
    path = write(
        tmp_path / "results.jsonl",
        [result(lines[0], {"error": {"message": "busy"}}, 503), *(result(line) for line in lines)],
    )
    assert runner.answer(pipeline, "faq", results=path).counts["generate"]["answered"] == 4


def test_results_of_another_export_are_refused_and_load_nothing(job: Job, tmp_path: Path) -> None:
    pipeline = job()
    exported(pipeline, tmp_path / "out.jsonl")
    other = exported(job(max_new_tokens=6), tmp_path / "other.jsonl")
    path = write(tmp_path / "results.jsonl", [result(line) for line in other])
    with pytest.raises(QuestionError, match=r"none of its 4 lines answers a prompt of job faq over version 1.*--v"):
        runner.answer(pipeline, "faq", results=path)
    with pytest.raises(QuestionError, match="none of its 4 lines"):
        runner.answer(pipeline, "faq", results=tmp_path / "other.jsonl")
    assert rows(pipeline) == {}


def test_an_export_that_fails_leaves_no_file(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memorag_pipeline.jobs.answers import results_in

    path = tmp_path / "out.jsonl"
    path.write_text("earlier")
    with monkeypatch.context() as patched:
        patched.setattr(results_in, "line_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.export_prompts(job(), "faq", path)
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"] and path.read_text() == "earlier"
    with pytest.raises(QuestionError, match="cannot be written"):
        runner.export_prompts(job(), "faq", tmp_path / "no folder" / "out.jsonl")


def test_a_job_without_prompts_for_elsewhere_is_refused_before_its_work(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    with pytest.raises(QuestionError, match=r"set generation\.model .* which is not contacted"):
        runner.export_prompts(pipeline, "faq", tmp_path / "out.jsonl")
    generation = {"model": "m", "endpoint": {"base_url": "http://cluster.invalid/v1"}}
    with pytest.raises(QuestionError, match="in mode memory_only the memories answer"):
        runner.export_prompts(
            make_pipeline(generation=generation, mode="memory_only", clues=[]), "faq", tmp_path / "out.jsonl"
        )


def test_the_command_writes_prompts_and_takes_results(job: Job, tmp_path: Path) -> None:
    spec = tmp_path / "topics.yaml"
    spec.write_text(yaml.safe_dump(job().spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    out, results = tmp_path / "out.jsonl", tmp_path / "results.jsonl"

    def answer(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["answer", str(spec), "faq", *arguments])

    exported = answer("--export-batch", str(out))
    assert exported.exit_code == 0 and "4 prompts over version 1 are in" in exported.stdout
    assert "--version 1 --import-results" in exported.stdout
    missing = answer("--import-results", str(results))
    assert missing.exit_code == QuestionError.exit_code and "no such file of results" in missing.stderr
    both = answer("--import-results", str(out), "--export-batch", str(out))
    assert both.exit_code == 2 and "give only one of" in both.stderr
    write(results, [result(json.loads(line)) for line in out.read_text().splitlines()])
    imported = answer("--import-results", str(results), "--json")
    assert imported.exit_code == 0 and json.loads(imported.stdout)["counts"]["generate"]["answered"] == 4
