"""Systems side by side, through the real pipeline with models of random numbers; and the report of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from lxml import etree

from memorag_pipeline.comparison import systems
from memorag_pipeline.comparison.compare import Comparison, compare
from memorag_pipeline.comparison.report import gain, interval, write_comparison
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.evaluation.bootstrap import Estimate
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.memory import MemorySpec
from tests.evaluation.test_report import EVIL, Page

QUESTIONS = (
    ("pass", "What does pass do?", "is a null operation"),
    ("lambda", "What is a lambda?", "anonymous function"),
    ("del", EVIL, "no text says so"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sets") / "topics.jsonl"
    rows = [
        {"input": question, "context": topics[name], "answers": [name], "evidence": [evidence], "context_id": name}
        for name, question, evidence in QUESTIONS
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"input": "no context"}]), encoding="utf-8")
    return str(path)


@pytest.fixture
def sections(source: Path, make_tiny_spec: Callable[..., CorpusSpec]) -> CorpusSpec:
    return make_tiny_spec(source, generation={"max_new_tokens": 4, "evidence_tokens": 128})


@pytest.fixture
def compared(dataset: str, sections: CorpusSpec, tmp_path: Path) -> Comparison:
    return compare([dataset], ("selected", "full"), tmp_path / "home", sections)


def test_all_systems_answer_the_same_questions(
    compared: Comparison, dataset: str, sections: CorpusSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = compared.sets
    assert (found.name, found.questions, found.contexts, found.unplaced) == ("topics", 3, 3, 1)
    assert len(found.broken) == 1 and "line 4" in found.broken[0]
    assert 0 < found.memory_bytes["selected"] < found.memory_bytes["full"]
    by_name = {system.system: system for system in found.systems}
    names = ["retrieval only", "full context"]
    names += [f"{mode}, {kind}" for mode in ("memory only", "MemoRAG") for kind in ("selected", "full")]
    assert list(by_name) == names
    for name, system in by_name.items():
        assert [row.question for row in system.rows] == [question for _, question, _ in QUESTIONS]
        assert system.metrics["token_f1"].questions == 3
        assert ("evidence_mrr" in system.metrics) == (name.startswith(("retrieval", "MemoRAG")))
        assert system.seconds > 0 and system.errors == 0
    assert by_name["retrieval only"].gains == {} and by_name["retrieval only"].clues == 0
    assert by_name["MemoRAG, full"].gains["evidence_mrr"].questions == 2
    # Each reads its whole text, which contains the passages.
    assert by_name["full context"].input_tokens > by_name["retrieval only"].input_tokens

    # The second time nothing is memorized or asked.
    for name in ("score_answer", "_read_and_reply"):
        monkeypatch.setattr(systems, name, None)
    monkeypatch.setattr("memorag_pipeline.jobs.answers.ask.answer_questions", None)
    monkeypatch.setattr("memorag_pipeline.memory.kinds.load.load_memory_model", None)
    assert compare([dataset], ("selected", "full"), tmp_path / "home", sections) == compared


def test_the_report(compared: Comparison, tmp_path: Path) -> None:
    (found,) = compared.sets
    compared = replace(compared, sets=(found, replace(found, name=EVIL, broken=(EVIL,))))
    write_comparison(tmp_path / "out", compared, EVIL)
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.elements and page.text.count(EVIL) > 5
    assert (page.elements.count("svg"), page.elements.count("table"), page.elements.count("details")) == (2, 4, 2)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"https?:|\bsrc=|@import|<link|data:", html)
    for plot in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        etree.fromstring(plot)
    values = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    first = values["sets"][0]["systems"][0]
    assert first["metrics"]["token_f1"]["mean"] == found.systems[0].metrics["token_f1"].mean
    assert first["rows"][2]["question"] == EVIL


def test_numbers_for_readers() -> None:
    assert interval(Estimate(0.5, 0.254, 0.746, 12)) == "50.0 (25\u201375)"
    assert gain(Estimate(0.5, -0.1, 0.746, 12)) == "+50.0 (-10 to +75)"
    assert interval(None) == gain(None) == ""


def test_a_set_without_texts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    path.write_text('{"question": "Why?", "answers": ["so"]}\n', encoding="utf-8")
    with pytest.raises(QuestionError, match="neither context nor context_id"):
        compare([str(path)], ("full",), tmp_path)


def test_memories_of_other_kinds_are_of_the_same_model() -> None:
    memory = MemorySpec(kind="selected", model="package:smollm2-135m-instruct", window=512, ratio=8, dtype="float32")
    assert systems.memory_of_kind(memory, "selected") is memory
    beacon = systems.memory_of_kind(memory, "beacon")
    assert (beacon.adapter, beacon.window, beacon.ratio, beacon.dtype) == (
        "package:smollm2-135m-beacon",
        None,
        None,
        "float32",
    )
    full = systems.memory_of_kind(beacon, "full")
    assert (full.kind, full.adapter, full.model) == ("full", None, memory.model)
