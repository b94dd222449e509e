"""What was recalled and answered is not done again: another question, a run that is killed, another version."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from memorag_pipeline import progress, runner
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.jobs.answers.generate import generate
from memorag_pipeline.jobs.answers.recall import recall
from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.write import report_of
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage.units import Outcome, Units
from memorag_pipeline.warehouse import open_warehouse

NAMES = ("lambda", "pass", "break", "await")
QUESTIONS = [f"What does the {name} topic say, number {number}?" for name in NAMES for number in range(3)]

Make = Callable[..., Pipeline]
Rows = list[dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]) -> Make:
    """A pipeline with one job `faq` over questions; keyword arguments change the job, `sections` the spec."""
    source = tmp_path / "topics"
    source.mkdir()
    for name in NAMES:
        (source / f"{name}.rst").write_text(topics[name], encoding="utf-8")

    def make(questions: list[str], sections: dict[str, Any] | None = None, **job: Any) -> Pipeline:
        path = tmp_path / "questions.jsonl"
        path.write_text("".join(json.dumps({"question": text}) + "\n" for text in questions), encoding="utf-8")
        values = {
            "questions": {"uri": str(path)},
            "warehouse": {"database": str(tmp_path / "answers.duckdb")},
            "clue_tokens": 8,
            **job,
        }
        generation = {"max_new_tokens": 4, "evidence_tokens": 256, "batch_size": 2}
        sharding = {"max_tokens": 300, "min_tokens": 64}
        return Pipeline(
            make_tiny_spec(source, sharding=sharding, generation=generation, jobs={"faq": values}, **(sections or {}))
        )

    return make


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each unit of recall and reply is recorded."""
    found: Counter[tuple[str, str]] = Counter()
    record = Units.record

    def counted(units: Units, outcome: Outcome) -> Outcome:
        if outcome.stage in ("recall", "reply"):
            found[outcome.stage, outcome.fingerprint] += 1
        return record(units, outcome)

    monkeypatch.setattr(Units, "record", counted)
    return found


def stages(recorded: Counter[tuple[str, str]]) -> Counter[str]:
    return Counter(stage for stage, _ in recorded.elements())


def rows(pipeline: Pipeline) -> Rows:
    found = open_warehouse(pipeline.spec.job("faq").warehouse).query(
        "SELECT * FROM memorag.answers ORDER BY corpus_version, question"
    )
    return [{name: row[name] for name in row if not name.startswith("_dlt")} for row in found.to_pylist()]


def test_of_a_set_that_grows_only_what_is_new_is_asked(make: Make, recorded: Counter[tuple[str, str]]) -> None:
    runner.refresh(make(QUESTIONS), "tests")
    first = make(QUESTIONS)
    runner.answer(first, "faq")
    before = {row["question"]: row for row in rows(first)}
    assert stages(recorded)["reply"] == len(QUESTIONS) <= stages(recorded)["recall"]

    recorded.clear()
    grown = make(["What is new here?", *QUESTIONS, QUESTIONS[0]])
    counts = runner.answer(grown, "faq").counts
    assert counts["recall"]["questions"] == stages(recorded)["recall"] <= 2
    assert stages(recorded)["reply"] == 1
    after = rows(grown)
    assert len(after) == len(QUESTIONS) + 2
    for row in after:
        if row["question"] in before:
            assert (row["answer"], row["clues"]) == tuple(before[row["question"]][key] for key in ("answer", "clues"))

    recorded.clear()
    assert runner.answer(make(QUESTIONS[::-1]), "faq").rows == len(QUESTIONS)
    assert not recorded


@pytest.mark.parametrize("name", ["questions recalled, by shard", "questions answered"])
def test_a_run_that_is_killed_goes_on_where_it_was(
    make: Make, recorded: Counter[tuple[str, str]], killed: Callable[[str], None], name: str
) -> None:
    pipeline = make(QUESTIONS)
    runner.refresh(pipeline, "tests")
    killed(name)
    with pytest.raises(KeyboardInterrupt):
        runner.answer(pipeline, "faq")
    there = len(recorded)
    assert there > 0
    assert runner.answer(pipeline, "faq").rows == len(QUESTIONS)
    assert len(recorded) > there and set(recorded.values()) == {1}


@pytest.fixture
def killed() -> Iterator[Callable[[str], None]]:
    """Ends the stage whose bar has this name when it has advanced by four questions, once."""
    reporter = progress._reporter

    class Killer:
        def __init__(self, name: str) -> None:
            self.name = name

        def start(self, name: str, total: float | None, unit: str) -> progress.Bar:
            left = [4.0 if name == self.name else float("inf")]
            killer = self

            class Bar:
                def advance(self, amount: float = 1) -> None:
                    left[0] -= amount
                    if left[0] < 0:
                        killer.name = ""
                        raise KeyboardInterrupt

            return Bar()

        def finish(self, bar: progress.Bar) -> None:
            pass

    yield lambda name: progress.install(Killer(name))
    progress.install(reporter)


def test_only_changed_evidence_is_asked_about_in_the_next_version(
    make: Make, recorded: Counter[tuple[str, str]], tmp_path: Path
) -> None:
    # The real model, since to one of random numbers all questions are alike.
    sections = {"embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"}}

    def pipeline_of(questions: list[str]) -> Pipeline:
        return make(questions, sections, only_changed=True, evidence=1)

    pipeline = pipeline_of([*QUESTIONS, " "])
    runner.refresh(pipeline, "first")
    runner.answer(pipeline, "faq")
    old = rows(pipeline)
    changed = tmp_path / "topics" / "pass.rst"
    changed.write_text(changed.read_text(encoding="utf-8").replace("null operation", "idle act"), encoding="utf-8")
    runner.refresh(pipeline, "second")

    recorded.clear()
    pipeline = pipeline_of([*QUESTIONS, " ", "What is new here?"])
    counts = runner.answer(pipeline, "faq").counts
    told = {row["question"]: [(p["uri"], p["text"]) for p in json.loads(row["evidence"])] for row in old}
    touched = {text for text, passages in told.items() if any(uri.endswith("pass.rst") for uri, _ in passages)}
    assert 0 < len(touched) < len(QUESTIONS)
    new = [row for row in rows(pipeline) if row["corpus_version"] == 2]
    assert len(new) == len(QUESTIONS) + 2
    asked = {row["question"] for row in new if row["answered_version"] == 2}
    assert asked == {*touched, "", "What is new here?"}
    assert counts["route"]["carried_over"] == len(QUESTIONS) - len(touched)
    assert stages(recorded)["reply"] <= len(asked)
    # What the run loaded, its row in the warehouse and its report count the same.
    carried = len(QUESTIONS) - len(touched)
    loaded = {"rows": len(new), "answered": len(new) - 1, "errors": 1, "carried_over": carried}
    assert counts["load"] == loaded
    (run,) = (
        open_warehouse(pipeline.spec.job("faq").warehouse)
        .query("SELECT * FROM memorag.runs WHERE corpus_version = 2")
        .to_pylist()
    )
    assert loaded == {"rows": run["questions"]} | {name: run[name] for name in ("answered", "errors", "carried_over")}
    report = report_of(pipeline.store, "topics", Run(run["run_id"], run["began"], "faq"))
    assert (report.statuses, report.carried_over) == (
        {"answered": len(new) - 1, "no_evidence": 0, "errors": 1},
        carried,
    )
    for row in new:
        if row["answered_version"] == 1:
            (then,) = (each for each in old if each["question"] == row["question"])
            assert {**row, "corpus_version": 1} == then

    # What was carried over once is carried over again, from the version that has it.
    changed.write_text("Nothing is left of it.\n", encoding="utf-8")
    runner.refresh(pipeline, "third")
    runner.answer(pipeline, "faq")
    third = {row["question"]: row["answered_version"] for row in rows(pipeline) if row["corpus_version"] == 3}
    assert {third[text] for text in QUESTIONS if text not in touched} == {1}


def test_memories_answer_by_themselves_in_a_job(make: Make, recorded: Counter[tuple[str, str]]) -> None:
    pipeline = make([*QUESTIONS, " "], mode="memory_only", only_changed=True)
    runner.refresh(pipeline, "first")
    counts = runner.answer(pipeline, "faq").counts
    assert stages(recorded) == {"reply": len(QUESTIONS)}
    assert (counts["generate"]["answered"], counts["generate"]["errors"]) == (len(QUESTIONS), 1)
    found = rows(pipeline)
    answered = [row for row in found if row["status"] == "answered"]
    assert {row["mode"] for row in found} == {"memory_only"}
    assert all(row["memory_shard_id"] and row["evidence"] == row["clues"] == "[]" for row in answered)
    assert all(row["generation_model"] == row["memory_model"] and row["output_tokens"] for row in answered)
    assert route(pipeline, "faq")["recall"] == []


def test_retrieval_only_asks_no_memory(make: Make, recorded: Counter[tuple[str, str]]) -> None:
    pipeline = make([*QUESTIONS, "\u4ec0\u4e48\u662f lambda?"], mode="retrieval_only")
    runner.refresh(pipeline, "first")
    assert runner.answer(pipeline, "faq").counts["route"]["shards"] == 0
    assert stages(recorded) == {"reply": len(QUESTIONS) + 1}
    found = rows(pipeline)
    assert {row["status"] for row in found} == {"answered"}  # a question in another language, too
    assert all(row["clues"] == "[]" and row["evidence"] != "[]" for row in found)


def test_a_run_in_flight_ends_though_its_version_is_retired(make: Make) -> None:
    pipeline = make(QUESTIONS)
    runner.refresh(pipeline, "first")
    routed = route(pipeline, "faq")
    retire(pipeline, make)
    for uri in routed["recall"]:
        recall(pipeline, uri)
    for uri in routed["generate"]:
        assert generate(pipeline, uri)["answered"] > 0
    with pytest.raises(NotFoundError, match="was retired"):
        route(pipeline, "faq", 1)


def test_a_version_whose_memories_are_gone_is_refused_by_name(make: Make) -> None:
    pipeline = make(QUESTIONS)
    runner.refresh(pipeline, "first")
    (uri, *_) = route(pipeline, "faq")["recall"]
    root = Path(pipeline.store.uri.removeprefix("file://"))
    for blob in pipeline.store.versions.manifest(1).of_role("memory"):
        (root / blob.ref.key).unlink()
    with pytest.raises(CorruptBlobError, match=r"memories/\w+\.safetensors of version 1: blob .* is missing"):
        recall(pipeline, uri)


def retire(pipeline: Pipeline, make: Make) -> None:
    """Publish another version, and retire the first."""
    source = Path(str(pipeline.spec.source.uris[0])) / "await.rst"
    source.write_text("Something else.\n", encoding="utf-8")
    runner.refresh(make(QUESTIONS), "second")
    pipeline.store.versions.retire(1, "tests", "for the test")
