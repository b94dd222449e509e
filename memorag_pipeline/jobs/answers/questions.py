"""Reading a job's questions.

In:  a file on any fsspec URI (`question_source.py`), or a SELECT on the job's warehouse.
Out: record batches of `schemas.QUESTIONS`, in the order of the source; a bad row carries its error.
Wrong: a source that cannot be read at all, or has no `question` column of text, is a `QuestionError` naming it.

Checked rows are spilled to a local file, so memory holds only a batch and the ids, whatever the size of the set: given
ids take precedence over generated ones, and the last row may give one.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from typing import Any

import pyarrow as pa

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.jobs.answers.question_file import BATCH
from memorag_pipeline.schemas import QUESTIONS
from memorag_pipeline.specs.jobs import JobSpec, QuestionsSpec

MAX_CHARACTERS = 20_000  # about ten pages: more is a document given as a question by mistake
_ID_DIGITS = 16
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class _Row:
    """One row of the source; `place` (`line-7`) is its id if it has no usable one."""

    place: str
    question_id: str | None
    question: str
    error: str | None


def read_questions(job: JobSpec) -> Iterator[pa.RecordBatch]:
    """All questions of `job`. Ids are unique; a question without one gets a digest of its text."""
    if job.questions is None:
        raise QuestionError(f"a job of kind {job.kind} asks no questions; run it with memorag summarize")
    taken: dict[str, str] = {}
    with _spilled(_refuse_repeated_id(row, taken) for row in _rows(job, job.questions)) as checked:
        identified = _identified(checked, set(taken))
        while batch := list(itertools.islice(identified, BATCH)):
            yield pa.RecordBatch.from_pylist(batch, schema=QUESTIONS)


def first_question(job: JobSpec) -> str | None:
    """The first question of `job`, without reading further rows where the format allows that; None if there is none.

    Raises QuestionError for a row that has none.
    """
    if job.questions is None:
        return None
    with closing(_rows(job, job.questions, most=1)) as rows:
        row = next(rows, None)
    if row is not None and row.error is not None:
        where = job.questions.uri or "the query on the warehouse"
        raise QuestionError(f"{where}: its first question cannot be asked: {row.error}")
    return None if row is None else row.question


def question_identity(text: str) -> str:
    """The identity of a question whatever its id: a digest of its text."""
    return text_digest(text)[:_ID_DIGITS]


def questions_of_texts(texts: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows of `schemas.QUESTIONS` for plain texts, as asked by a service or at the command line."""
    return list(_identified((_row(f"row-{n}", {"question": text}) for n, text in enumerate(texts, 1)), set()))


def _identified(rows: Iterable[_Row], taken: set[str]) -> Iterator[dict[str, Any]]:
    """Rows with unique ids: the given ones (all of them are in `taken`), else digests of the text, else places.

    Adds to `taken`.
    """
    seen: Counter[str] = Counter()
    for row in rows:
        question_id = row.question_id
        if question_id is None:
            stem = row.place if row.error else question_identity(row.question)
            question_id = _free_id(stem, seen, taken)
            taken.add(question_id)
        yield {"question_id": question_id, "question": row.question, "error": row.error}


@contextmanager
def _spilled(rows: Iterable[_Row]) -> Iterator[Iterator[_Row]]:
    """The rows again, after all of them were seen."""
    rows = iter(rows)
    schema = pa.schema([pa.field(field.name, pa.string()) for field in fields(_Row)])
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_stream(file, schema) as writer:
            while batch := list(itertools.islice(rows, BATCH)):
                columns = zip(*map(astuple, batch), strict=True)
                writer.write_batch(pa.record_batch([pa.array(column, pa.string()) for column in columns], schema))
        file.seek(0)
        yield (_Row(**row) for batch in pa.ipc.open_stream(file) for row in batch.to_pylist())


def _rows(job: JobSpec, source: QuestionsSpec, most: int | None = None) -> Generator[_Row]:
    """The rows of the source; at most `most` of them."""
    # Its packages are not needed for questions that are given as texts.
    from memorag_pipeline.jobs.answers.question_source import rows_of_file, rows_of_query

    if source.sql is None:
        raw = rows_of_file(source)
    else:
        from memorag_pipeline.warehouse import open_warehouse
        from memorag_pipeline.warehouse.interface import as_subquery

        sql = source.sql if most is None else f"{as_subquery(source.sql)} LIMIT {most}"
        raw = rows_of_query(open_warehouse(job.warehouse).query(sql))
    for place, value in itertools.islice(raw, most):
        yield _Row(place, None, "", value) if isinstance(value, str) else _row(place, value)


def _row(place: str, value: dict[str, Any]) -> _Row:
    """Check one question; further keys of `value` are ignored."""
    given = value.get("question_id")
    question_id, id_problem = _checked_id(value.get("id") if given is None else given)
    text, problem = _checked_text(value.get("question"))
    problem = id_problem or problem
    return _Row(place, question_id, text, f"{place.replace('-', ' ')}: {problem}" if problem else None)


def _checked_id(value: Any) -> tuple[str | None, str | None]:
    """The id as text, and the problem with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), None
    if value is None or _is_unicode(value):
        return (value or "").strip() or None, None
    return None, "question_id is neither text nor a whole number"


def _checked_text(value: Any) -> tuple[str, str | None]:
    """The question as stored, and the problem with it."""
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
    """Whether `text` is text that UTF-8 can hold; JSON can hold a lone surrogate, which UTF-8 cannot."""
    return isinstance(text, str) and not _SURROGATE.search(text)


def _refuse_repeated_id(row: _Row, first: dict[str, str]) -> _Row:
    """The first row with an id keeps it; a later one becomes an error row under its place. Adds to `first`."""
    if row.question_id is None:
        return row
    if row.question_id not in first:
        first[row.question_id] = row.place
        return row
    where, earlier = (place.replace("-", " ") for place in (row.place, first[row.question_id]))
    return _Row(row.place, None, row.question, f"{where}: question_id {row.question_id!r} is used on {earlier}")


def _free_id(stem: str, seen: Counter[str], taken: set[str]) -> str:
    """`stem`, or the next of `stem-2`, `stem-3`, … that is free; deterministic for the same rows in the same order."""
    while True:
        seen[stem] += 1
        name = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
        if name not in taken:
            return name
