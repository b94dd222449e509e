"""Files of questions: each form that there is, what is left out of them, and which rows are chosen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import QuestionError
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion, read_question_set
from tests.conftest import REPOSITORY

EVAL = REPOSITORY.parent / "shared" / "data" / "eval"


def write(path: Path, *rows: Any) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_longbench(tmp_path: Path) -> None:
    row = {"input": "Who?", "context": "Ann did.", "answers": ["Ann"], "all_classes": None, "length": 2, "_id": "x"}
    uri = write(
        tmp_path / "hotpotqa.jsonl",
        {**row, "language": "en"},
        {**row, "_id": "y", "language": "zh", "input": "谁?", "all_classes": ["Ann", "Bob"]},
    )
    found = read_question_set(uri)
    assert (found.name, found.language, list(found.contexts.values())) == ("hotpotqa", "en", ["Ann did."])
    (name,) = found.contexts
    assert found.questions == (
        EvaluationQuestion("x", "Who?", ("Ann",), (), name, "en"),
        EvaluationQuestion("y", "谁?\nA. Ann\nB. Bob", ("Ann", "A"), (), name, "zh"),
    )


def test_ultradomain_and_infinitebench(tmp_path: Path) -> None:
    uri = write(
        tmp_path / "cs.jsonl",
        {"input": "Why?", "context": "Long.", "label": "Because.", "context_id": "book-1", "_id": "a"},
        {"input": "How?", "context": "Long.", "answers": ["So."], "context_id": "../book", "_id": "b"},
        {"id": 3, "input": "Which?", "context": "Other.", "answer": ["Two"], "options": ["One", "Two", "Three"]},
    )
    found = read_question_set(uri)
    assert [question.answers for question in found.questions] == [("Because.",), ("So.",), ("Two", "B")]
    assert [question.question_id for question in found.questions] == ["a", "b", "3"]
    assert found.questions[0].uri == "contexts/book-1.txt"
    # A name that cannot be a file's is replaced by its digest.
    assert all(Path(name).parent == Path("contexts") and ".." not in name for name in found.contexts)
    assert sorted(found.contexts.values()) == ["Long.", "Long.", "Other."]


def test_questions_for_a_gate_have_no_contexts(tmp_path: Path) -> None:
    uri = write(
        tmp_path / "gate.jsonl",
        {"question": "When?", "answers": "1996", "evidence": ["It was in 1996."], "uri": "history/first.md"},
        {"question_id": "q", "question": "Where?", "evidence": "In Rome."},
    )
    first, second = read_question_set(uri).questions
    assert (first.answers, first.evidence, first.uri) == (("1996",), ("It was in 1996.",), "history/first.md")
    assert (second.question_id, second.answers, second.evidence) == ("q", (), ("In Rome.",))
    assert read_question_set(uri).contexts == {}


def test_broken_rows_are_named_and_left_out(tmp_path: Path) -> None:
    good = {"id": "1", "question": "?", "context": "Text.", "answers": ["a"]}
    uri = write(
        tmp_path / "broken.jsonl",
        good,
        "{",
        [1],
        {"id": "2", "context": "Text.", "answers": ["a"]},
        {**good, "id": "3", "question": " "},
        {**good, "id": "4", "answers": []},
        {**good, "id": "5", "answers": [{"text": "a"}]},
        {**good, "id": "6", "context": 7},
        good,
        {"id": "7", "question": "?", "answers": ["a"], "context_id": "gone"},
        {"id": "8", "question": "?", "answers": ["a"], "context_id": "../gone"},
        "",
        '{"id": "9", "question": "?", "answers": ["\\ud83d"], "context": "Half of a pair."}',
        {"id": "10", "question": "?", "answers": ["\U0001f600"], "context": "A pair."},
    )
    found = read_question_set(uri)
    assert [question.question_id for question in found.questions] == ["1", "10"]
    for line, why in (
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "no question or input"),
        (5, "not text"),
        (6, "neither answers nor evidence"),
        (7, "its answers"),
        (8, "its context"),
        (9, "id '1'"),
        (10, "gone.txt"),
        (11, "not the name of a file"),
        (13, "surrogates not allowed"),
    ):
        assert sum(problem.startswith(f"line {line}") and why in problem for problem in found.broken) == 1, line
    assert len(found.broken) == 11


def test_a_wrong_file_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="no such file"):
        read_question_set(str(tmp_path / "gone.jsonl"))
    with pytest.raises(QuestionError, match="line 1: has no question or input"):
        read_question_set(write(tmp_path / "jobs.jsonl", {"text": "What?"}))
    with pytest.raises(QuestionError, match="it has none"):
        read_question_set(write(tmp_path / "empty.jsonl"))
    with pytest.raises(QuestionError, match=r"none of its contexts.*gone\.txt"):
        read_question_set(write(tmp_path / "c.jsonl", {"question": "?", "answers": ["a"], "context_id": "gone"}))


def test_rows_are_chosen_on_few_contexts(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "question": f"{n}?", "answers": ["a"], "context": f"Text {n % 5}.", "context_id": n % 5}
        for n in range(40)
    ]
    uri = write(tmp_path / "set.jsonl", *rows)
    found = read_question_set(uri, 8, seed=1)
    assert found == read_question_set(uri, 8, seed=1) != read_question_set(uri, 8, seed=2)
    assert sorted(Counter(question.uri for question in found.questions).values()) == [2, 3, 3]
    assert set(found.contexts) == {question.uri for question in found.questions}
    numbers = [int(question.question_id) for question in found.questions]
    assert numbers == sorted(numbers)
    assert len(read_question_set(uri, 100).questions) == 40


@pytest.mark.skipif(not EVAL.exists(), reason=f"there is no {EVAL}")
@pytest.mark.parametrize(("name", "language"), [("xquad_en", "en"), ("drcd", "zh"), ("squality", "en")])
def test_real_sets(name: str, language: str) -> None:
    found = read_question_set(str(EVAL / f"{name}.dev.jsonl"), 9)
    assert (found.name, found.language, len(found.questions), len(found.contexts)) == (name, language, 9, 3)
    assert found.broken == ()
    for question in found.questions:
        assert all(
            " ".join(span.split()) in " ".join(found.contexts[question.uri or ""].split()) for span in question.evidence
        )
