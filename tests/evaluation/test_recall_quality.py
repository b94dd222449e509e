"""Clues that hit the evidence, passages that cover it, and both for questions on a text."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline import schemas
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.evaluation import recall_quality as module
from memorag_pipeline.evaluation.recall_quality import (
    ContextQuestion,
    covered,
    hits_evidence,
    read_questions,
    recall_quality,
)
from memorag_pipeline.retrieval.passage import Passage
from tests.conftest import REPOSITORY
from tests.memory.conftest import MakeModel

EVAL = REPOSITORY.parent / "shared" / "data" / "eval"
CONTEXT = "\n\n".join(topics[name] for name in ("pass", "continue", "break"))
EVIDENCE = "when it is executed, nothing happens"


def question(text: str = "What is a null operation?", evidence: tuple[str, ...] = (EVIDENCE,)) -> ContextQuestion:
    return ContextQuestion("q", "topics", "pass", CONTEXT, text, evidence, "en")


def passage(start: int, end: int, text: str = CONTEXT) -> Passage:
    return Passage("", "", "", start, end, 1.0, text[start:end], "")


@pytest.mark.parametrize(
    ("clue", "evidence", "asked", "hit"),
    [
        ("It says that, when it is EXECUTED: nothing else.", EVIDENCE, "What?", True),
        ("It is executed, and nothing happens.", EVIDENCE, "What?", False),
        ("when it is executed, nothing at all", EVIDENCE, "What if, when it is executed, nothing is done?", False),
        ("It moves in an anterograde way.", "anterograde", "In which direction does it move?", True),
        ("It moves in an anterograde way.", "anterograde", "Is it anterograde?", False),
        ("已婚,育有3名子女", "1996年加入公署,已婚,育有3名子女。", "有几个孩子?", True),
        ("育有3名女", "1996年加入公署,已婚,育有3名子女。", "有几个孩子?", False),
        ("Whatever it is", "", "What?", False),
    ],
)
def test_a_clue_hits_the_evidence(clue: str, evidence: str, asked: str, hit: bool) -> None:
    assert hits_evidence(clue, [evidence], asked) == hit
    assert hits_evidence(clue, ["something else altogether is said here", evidence], asked) == hit


def test_passages_cover_evidence() -> None:
    start = CONTEXT.index(EVIDENCE)
    end = start + len(EVIDENCE)
    assert covered(question(), [passage(0, len(CONTEXT))]) == 1
    assert covered(question(), [passage(0, start), passage(end, end + 9)]) == 0
    assert covered(question(), [passage(start + 9, end)]) == pytest.approx(1 - 9 / len(EVIDENCE))
    assert covered(question(), [passage(start + 9, end), passage(start, start + 9)]) == 1
    assert covered(question(), []) == 0


def test_of_places_the_one_that_is_covered_best_counts() -> None:
    assert CONTEXT.count("loop") > 2
    start = CONTEXT.rindex("loop")
    assert covered(question(evidence=("loop",)), [passage(start, start + 4)]) == 1
    both = question(evidence=("loop", EVIDENCE))
    assert covered(both, [passage(start, start + 4)]) == pytest.approx(4 / (4 + len(EVIDENCE)))


def test_recall_of_a_memory(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With known clues: one is the evidence, and finds first what the question by itself does not."""
    asked = [question("Which statement is about loops?"), question("Who?")]
    asked = [ContextQuestion(str(number), *list(vars(one).values())[1:]) for number, one in enumerate(asked)]

    def recalled(model: Any, memory: Any, shard_id: str, questions: Any, settings: Any, advance: Any) -> pa.Table:
        assert memory.tokens > 300
        assert (settings.clues, settings.clue_tokens) == (("spans",), 64)
        rows = [
            {"question_id": "0", "shard_id": "", "kind": "spans", "text": text, "tokens": 1}
            for text in (f"pass is a null operation: {EVIDENCE}", "It is no loop.")
        ]
        return pa.Table.from_pylist(rows, schema=schemas.CLUES)

    monkeypatch.setattr(module, "recall_clues", recalled)
    found = recall_quality(make_model("beacon", sink=1), asked)
    assert (found.set, found.questions, found.left_out) == ("topics", 2, 0)
    assert (found.clues, found.hits) == (1.0, 0.5)
    assert [at.k for at in found.recall] == [1, 3, 5]
    assert found.recall[0].question == found.recall[0].with_clues
    for at in found.recall:
        assert 0 <= at.question <= at.with_clues <= 1
    assert found.recall[-1].with_clues == 1


def test_clues_come_from_the_memory_itself(make_model: MakeModel) -> None:
    found = recall_quality(make_model("selected"), [question()], clue_tokens=8)
    assert found == recall_quality(make_model("selected"), [question()], clue_tokens=8)
    assert found.questions == 1


def test_a_text_that_does_not_fit_is_left_out(make_model: MakeModel) -> None:
    long = ContextQuestion("long", "topics", "long", CONTEXT * 3, "What?", (EVIDENCE,), "en")
    model = make_model("beacon", sink=1)
    found = recall_quality(model, [question(), long], clue_tokens=8)
    assert (found.questions, found.left_out) == (1, 1)
    with pytest.raises(ValueError, match="none of 1 questions"):
        recall_quality(model, [long])


def test_questions_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / "c.txt").write_bytes("Zeile\r\n你好\n".encode())
    row = {"id": "1", "set": "s", "context_id": "c", "question": "?", "evidence": ["你好"], "language": "zh-Hans"}
    rows = [row | {"id": "0", "evidence": []}, row, row | {"id": "2", "language": "en"}, row | {"id": "3"}]
    path = tmp_path / "s.dev.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert read_questions(path, 2) == [
        ContextQuestion("1", "s", "c", "Zeile\r\n你好\n", "?", ("你好",), "zh"),
        ContextQuestion("2", "s", "c", "Zeile\r\n你好\n", "?", ("你好",), "en"),
    ]
    with pytest.raises(NotFoundError, match=r"t\.jsonl"):
        read_questions(tmp_path / "t.jsonl", 2)
    (tmp_path / "contexts" / "c.txt").unlink()
    with pytest.raises(NotFoundError, match=r"c\.txt"):
        read_questions(path, 2)


@pytest.mark.skipif(not EVAL.exists(), reason=f"there is no {EVAL}")
def test_questions_of_real_sets() -> None:
    for name, language in (("xquad_en", "en"), ("drcd", "zh"), ("qmsum", "en")):
        found = read_questions(EVAL / f"{name}.dev.jsonl", 20)
        assert len(found) == 20
        for one in found:
            assert (one.set, one.language) == (name, language)
            assert covered(one, [passage(0, len(one.context), one.context)]) == pytest.approx(1)
            assert hits_evidence(one.evidence[0], one.evidence, "")
