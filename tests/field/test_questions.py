"""Question sets of the field: each is read, or refused in words that name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.answers.questions import read_questions
from memorag_pipeline.specs.jobs import JobSpec
from tests.field.cases import FIELD, Case, check_each, each_case, texts


@dataclass(frozen=True)
class Asked:
    """The rows of a question set, or why it is refused as a whole."""

    rows: list[dict[str, Any]]
    refusal: str

    @property
    def good(self) -> dict[str, str]:
        """The questions that are asked, by id."""
        return {row["question_id"]: row["question"] for row in self.rows if row["error"] is None}

    @property
    def errors(self) -> dict[str, str]:
        """Why the others are not."""
        return {row["question_id"]: row["error"] for row in self.rows if row["error"] is not None}

    @property
    def told(self) -> str:
        """The whole text about the problems."""
        return "\n".join([self.refusal, *self.errors.values()])


def _ask(path: Path, folder: Path) -> Asked:
    warehouse = {"database": str(folder / "answers.duckdb")}
    job = JobSpec.model_validate({"questions": {"uri": str(path)}, "warehouse": warehouse})
    try:
        return Asked([row for batch in read_questions(job) for row in batch.to_pylist()], "")
    except MemoragError as error:
        return Asked([], str(error))


@each_case("questions/")
def test_it_is_read_or_refused_by_name(case: Case, tmp_path: Path) -> None:
    asked = _ask(FIELD / case.name, tmp_path)
    if case.by_hand:
        if case.name not in BY_HAND:
            pytest.skip(f"{case.name}: no check by hand is written")
        BY_HAND[case.name](asked)
        return
    check_each(
        case,
        {
            "questions": lambda value: _equal(len(asked.good), value),
            "rows": lambda value: _equal(len(asked.rows), value),
            "ids": lambda value: _equal(list(asked.good), value),
            "contains": lambda value: _equal([each for each in texts(value) if each not in str(asked.good)], []),
            "lacks": lambda value: _equal([each for each in texts(value) if each in str(asked.good)], []),
            "error_has": lambda value: _equal([each for each in texts(value) if each not in asked.told], []),
            "error_lacks": lambda value: _equal([each for each in texts(value) if each in asked.told], []),
            "exit": lambda value: _equal(6 if asked.refusal else 0, value),
        },
    )


def _equal(found: Any, expected: Any) -> None:
    assert found == expected


def _two(asked: Asked) -> None:
    assert (list(asked.good), asked.errors) == (["a", "b"], {})
    assert asked.good["a"] == "What is a quay?" and asked.good["b"].startswith("Who is Ann")


def _odd_ids(asked: Asked) -> None:
    assert len(asked.rows) == 16 and not asked.refusal
    assert {"7", "日本 #1/2", "e", "t", "last"} <= asked.good.keys()
    assert sum("is used on" in error for error in asked.errors.values()) >= 1
    assert sum("is not JSON" in error for error in asked.errors.values()) == 1
    assert {"s", "l", "w"} <= asked.errors.keys()


def _float_ids(asked: Asked) -> None:
    assert not asked.good and "question_id" in asked.told
    assert "double" in asked.told or "float" in asked.told


def _capital(asked: Asked) -> None:
    assert not asked.rows and "question" in asked.refusal and "Question" in asked.refusal


def _other_key(asked: Asked) -> None:
    assert not asked.good and "question" in asked.told and "query" in asked.told


def _id_key(asked: Asked) -> None:
    assert (list(asked.good), asked.errors) == (["X-1", "X-2"], {})


BY_HAND: dict[str, Callable[[Asked], None]] = {
    "questions/bom_crlf.jsonl": _two,
    "questions/odd_ids.jsonl": _odd_ids,
    "questions/pandas_float_ids.parquet": _float_ids,
    "questions/capital.parquet": _capital,
    "questions/other_key.jsonl": _other_key,
    "questions/array.json": _two,
    "questions/plain.csv": _two,
    "questions/gz.jsonl.gz": lambda asked: _equal((len(asked.good) >= 1, asked.told), (True, "")),
    "questions/id_key.jsonl": _id_key,
}
