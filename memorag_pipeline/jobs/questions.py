"""Reading a job's questions.

In:  a JSONL or Parquet file on any fsspec URI, or a SELECT on the job's warehouse.
Out: a table of `schemas.QUESTIONS`, in the order of the source; a bad row carries its error.
Wrong: a source that cannot be read at all, or has no `question` column, is a `QuestionError` naming it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.schemas import QUESTIONS
from memorag_pipeline.spec import JobSpec, QuestionsSpec
from memorag_pipeline.storage.credentials import options_for

MAX_CHARACTERS = 20_000  # some ten pages: a document given as a question by mistake, not a question
_ID_DIGITS = 16
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class _Row:
    """One row of the source; `place` (`line-7`) is its id when it has none that can be used."""

    place: str
    question_id: str | None
    question: str
    error: str | None


def read_questions(job: JobSpec) -> pa.Table:
    """All questions of `job`. Ids are unique; a question without one gets a digest of its text."""
    if job.questions is None:
        raise QuestionError(f"a job of kind {job.kind} asks no questions; run it with memorag summarize")
    if job.questions.sql is not None:
        from memorag_pipeline.warehouse import open_warehouse

        table = open_warehouse(job.warehouse).query(job.questions.sql)
        return question_table(_rows_of_table("the query on the warehouse", table))
    return question_table(_rows_of_file(job.questions))


def question_table(rows: Iterable[_Row]) -> pa.Table:
    """Rows with unique ids: the given ones first, then digests of the text, then places."""
    listed = _refuse_repeated_ids(list(rows))
    taken = {row.question_id for row in listed if row.question_id is not None}
    seen: Counter[str] = Counter()
    columns: dict[str, list[str | None]] = {"question_id": [], "question": [], "error": []}
    for row in listed:
        question_id = row.question_id
        if question_id is None:
            stem = row.place if row.error else text_digest(row.question)[:_ID_DIGITS]
            question_id = _free_id(stem, seen, taken)
            taken.add(question_id)
        columns["question_id"].append(question_id)
        columns["question"].append(row.question)
        columns["error"].append(row.error)
    return pa.table(columns, schema=QUESTIONS)


def questions_of_texts(texts: Iterable[Any]) -> pa.Table:
    """The question table of plain texts, as asked by a service or at the command line."""
    return question_table(_row(f"row-{n}", {"question": text}) for n, text in enumerate(texts, 1))


def _rows_of_file(source: QuestionsSpec) -> list[_Row]:
    uri = str(source.uri)
    try:
        with fsspec.open(uri, "rb", **options_for(source)) as file:
            if file.read(4) == b"PAR1":
                return list(_rows_of_table(uri, _read_parquet(uri, file)))
            file.seek(0)
            return _rows_of_lines(uri, file)
    except FileNotFoundError:
        raise QuestionError(f"{uri}: no such question file; correct questions.uri") from None
    except PermissionError:
        raise QuestionError(f"{uri}: the question file may not be read; check the credentials and its rights") from None
    except (OSError, ImportError, ValueError) as error:
        raise QuestionError(f"{uri}: the question file cannot be read: {type(error).__name__}: {error}") from error


def _rows_of_lines(uri: str, file: Iterable[bytes]) -> list[_Row]:
    rows, objects, keys = [], 0, set[str]()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        place = f"line-{number}"
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            rows.append(_Row(place, None, "", f"line {number} is not UTF-8 text (byte {error.start + 1})"))
            continue
        except (ValueError, RecursionError) as error:
            rows.append(_Row(place, None, "", f"line {number} is not JSON: {error}"))
            continue
        if not isinstance(value, dict):
            rows.append(_Row(place, None, "", f"line {number} is not a JSON object with a question"))
            continue
        objects += 1
        keys.update(value)
        rows.append(_row(place, value))
    if rows and not objects:
        raise QuestionError(f"{uri}: neither JSON lines nor Parquet; write one JSON object on each line")
    if objects and "question" not in keys:
        raise QuestionError(f"{uri}: no line has the key 'question'; keys found: {', '.join(sorted(keys)) or 'none'}")
    return rows


def _read_parquet(uri: str, file: Any) -> pa.Table:
    try:
        parquet = pq.ParquetFile(file)
        wanted = [name for name in ("question_id", "question") if name in parquet.schema_arrow.names]
        return parquet.read(columns=wanted or None)
    except pa.ArrowException as error:
        raise QuestionError(f"{uri}: starts as Parquet but cannot be read: {error}") from error


def _rows_of_table(name: str, table: pa.Table) -> Iterator[_Row]:
    if "question" not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        raise QuestionError(f"{name}: has no column 'question'; columns found: {found}")
    wanted = [column for column in ("question_id", "question") if column in table.column_names]
    number = 0
    for batch in table.select(wanted).to_batches(max_chunksize=1024):
        for value in batch.to_pylist():
            number += 1
            yield _row(f"row-{number}", value)


def _row(place: str, value: dict[str, Any]) -> _Row:
    """Check one question; `value` may have further keys, which are not ours."""
    question_id, id_problem = _checked_id(value.get("question_id"))
    text, problem = _checked_text(value.get("question"))
    problem = id_problem or problem
    return _Row(place, question_id, text, f"{place.replace('-', ' ')}: {problem}" if problem else None)


def _checked_id(value: Any) -> tuple[str | None, str | None]:
    """The id as text, and what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), None
    if value is None or _is_unicode(value):
        return (value or "").strip() or None, None
    return None, "question_id is neither text nor a whole number"


def _checked_text(value: Any) -> tuple[str, str | None]:
    """The question as it is kept, and what is wrong with it."""
    if value is None or value == "":
        return "", "the question has no text"
    if not isinstance(value, str):
        return "", f"the question is not text but {type(value).__name__}"
    if not _is_unicode(value):
        return "", "the question is not valid Unicode (half a surrogate pair)"
    if len(value) > MAX_CHARACTERS:
        return value[:200] + "…", f"the question has {len(value):,} characters; at most {MAX_CHARACTERS:,} are accepted"
    return value.strip(), None if value.strip() else "the question has no text"


def _is_unicode(text: Any) -> bool:
    """Whether `text` is text that UTF-8 can hold; JSON can write half of a surrogate pair, which it cannot."""
    return isinstance(text, str) and not _SURROGATE.search(text)


def _refuse_repeated_ids(rows: list[_Row]) -> list[_Row]:
    """The first row with an id keeps it; a later one becomes an error row under its place."""
    first: dict[str, str] = {}
    checked = []
    for row in rows:
        if row.question_id is not None and row.question_id in first:
            where, earlier = (place.replace("-", " ") for place in (row.place, first[row.question_id]))
            row = _Row(row.place, None, row.question, f"{where}: question_id {row.question_id!r} is used on {earlier}")
        elif row.question_id is not None:
            first[row.question_id] = row.place
        checked.append(row)
    return checked


def _free_id(stem: str, seen: Counter[str], taken: set[str]) -> str:
    """`stem`, or the next of `stem-2`, `stem-3`, … that is free; the same for the same rows in the same order."""
    while True:
        seen[stem] += 1
        name = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
        if name not in taken:
            return name
