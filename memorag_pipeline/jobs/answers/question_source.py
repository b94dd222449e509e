"""The raw rows of a question set in a file or query, whatever its format.

In:  a file on any fsspec URI: JSON lines, a JSON array, CSV or TSV, a workbook, Parquet, or one of them compressed; or
     the table that a query gives.
Out: each row with its place: its values by key, or a description of the problem.
Wrong: a file or table that is not a question set, or has no column `question` of text: `QuestionError` that says why.

The bytes decide the format. JSON lines and Parquet are streamed, the others are read whole.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from lxml import etree

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.delimited import column_names, delimited_rows
from memorag_pipeline.corpus.formats import binary_type
from memorag_pipeline.corpus.package_types import DAMAGES, XLSX
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.excel import excel_sheets
from memorag_pipeline.corpus.text import MAX_EXPANSION
from memorag_pipeline.corpus.unpack import SUFFIXES, unpack
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.jobs.answers.question_file import BATCH
from memorag_pipeline.specs.jobs import QuestionsSpec
from memorag_pipeline.storage.credentials import options_for

_MAX_LINE = 1 << 20  # bytes; the longest question in JSON escapes, plus as much for other keys
_WHOLE = 256 << 20  # bytes of a file that is not streamed
_HEAD = 1 << 16  # bytes from which the format is detected
_BOM = b"\xef\xbb\xbf"
_KEYS = ("question_id", "id", "question")
_FORMATS = "write JSON lines, a JSON array, CSV, an XLSX workbook or Parquet, with a column 'question'"

Values = dict[str, Any]
Raw = tuple[str, Values | str]  # the place, such as `line-7`; the values by key, or the problem


class _TwiceError(ValueError):
    """A repeated key of an object."""


def rows_of_query(table: pa.Table) -> Iterator[Raw]:
    """The rows of the table that a query on the warehouse gave."""
    wanted = _wanted("the query on the warehouse", table.schema)
    return _rows_of_batches(table.select(wanted).to_batches(max_chunksize=BATCH))


def rows_of_file(source: QuestionsSpec) -> Iterator[Raw]:
    """The rows of the file that the spec names."""
    uri = str(source.uri)
    try:
        # The files of some filesystems cannot limit the length of a line.
        with fsspec.open(uri, "rb", **options_for(source)) as file, io.BufferedReader(file) as lines:
            yield from _rows(uri, lines)
    except Refused as refused:
        raise QuestionError(f"{uri}: the question file {refused.detail}; {_FORMATS}") from None
    except FileNotFoundError:
        raise QuestionError(f"{uri}: no such question file; correct questions.uri") from None
    except PermissionError:
        raise QuestionError(f"{uri}: the question file may not be read; check the credentials and its rights") from None
    except (OSError, ImportError, ValueError) as error:
        raise QuestionError(f"{uri}: the question file cannot be read: {type(error).__name__}: {error}") from error


def _rows(uri: str, file: Any) -> Iterator[Raw]:
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(b"PAR1"):
        return _rows_of_parquet(uri, file)
    if head.removeprefix(_BOM).lstrip().startswith(b"{") and b"\0" not in head:
        return _rows_of_lines(uri, file)
    data = file.read(_WHOLE + 1)
    if len(data) > _WHOLE:
        raise QuestionError(
            f"{uri}: a question file of more than {_WHOLE >> 20} MiB that is neither JSON lines nor Parquet,"
            " which alone are read piece by piece; write one of them"
        )
    data, layers = unpack(data, _WHOLE, MAX_EXPANSION)
    if data.startswith(b"PAR1"):
        return _rows_of_parquet(uri, io.BytesIO(data))
    if not data.strip():
        return iter(())
    media_type = binary_type(data, MAX_EXPANSION)
    if media_type is not None:
        return _rows_of_workbook(uri, data, media_type)
    path = PurePosixPath(uri.rsplit("/", 1)[-1])
    for _ in range(layers):
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return _rows_of_text(uri, decode(data), path.suffix.lower() in {".jsonl", ".ndjson"})


def _rows_of_text(uri: str, text: str, is_lines: bool) -> Iterator[Raw]:
    start = text.lstrip()[:1]
    if start == "[" and (values := _array(uri, text, is_lines)) is not None:
        return _rows_of_array(uri, values)
    if start == "{" or is_lines:
        return _rows_of_lines(uri, io.BytesIO(text.encode()))
    return _rows_of_table(uri, text)


def _array(uri: str, text: str, is_lines: bool) -> list[Any] | None:
    """The array in a text; None if the text is lines, the first of which is an array."""
    try:
        found: list[Any] = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        if is_lines:
            return None
        raise QuestionError(f"{uri}: begins as a JSON array but is none: {error}") from None
    return found


def _rows_of_array(uri: str, values: list[Any]) -> Iterator[Raw]:
    keys = {key for value in values if isinstance(value, dict) for key in value}
    if keys or not any(isinstance(value, str) for value in values):
        _require_question(uri, sorted(keys), "row", "key")
    for number, value in enumerate(values, 1):
        row = {"question": value} if isinstance(value, str) else value
        yield f"row-{number}", row if isinstance(row, dict) else f"row {number} is not a JSON object with a question"


def _rows_of_table(uri: str, text: str) -> Iterator[Raw]:
    try:
        names, rows = delimited_rows(text)
    except ValueError as error:
        raise QuestionError(f"{uri}: {error}; {_FORMATS}") from None
    _require_question(uri, names)
    for row in rows:
        yield f"line-{row.line}", f"line {row.line} {row.problem}" if row.cells is None else row.cells


def _rows_of_workbook(uri: str, data: bytes, media_type: str) -> Iterator[Raw]:
    """The rows of the first visible sheet that is not empty; a place is the row's number in the sheet."""
    if media_type != XLSX:
        raise QuestionError(f"{uri}: the question file is {media_type}; {_FORMATS}")
    try:
        rows = next((sheet.rows for sheet in excel_sheets(data) if any(map(_is_filled, sheet.rows.values()))), {})
    except (*DAMAGES, etree.XMLSyntaxError) as error:
        raise QuestionError(f"{uri}: is a damaged workbook: {error}") from None
    numbers = sorted(number for number, cells in rows.items() if _is_filled(cells))
    if not numbers:
        return
    first = rows[numbers[0]]
    names = column_names([first.get(column, "") for column in range(max(first) + 1)])
    _require_question(uri, names)
    for number in numbers[1:]:
        yield f"row-{number + 1}", {name: rows[number].get(column, "") for column, name in enumerate(names)}


def _is_filled(cells: Mapping[int, str]) -> bool:
    return any(text.strip() for text in cells.values())


def _rows_of_lines(uri: str, file: IO[bytes]) -> Iterator[Raw]:
    found, objects, keys = 0, 0, set[str]()
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        found += 1
        place = f"line-{number}"
        try:
            value = _object_of(line, number)
        except QuestionError as problem:
            yield place, str(problem)
            continue
        objects += 1
        keys.update(value)
        yield place, value
    if found and not objects:
        raise QuestionError(
            f"{uri}: begins as JSON, but no line is a JSON object; write each question as an object on its own line,"
            " or all of them as one JSON array"
        )
    if objects:
        _require_question(uri, sorted(keys), "line", "key")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, each truncated where it is too long to be a question."""
    while line := file.readline(_MAX_LINE + 1):
        yield line
        while len(line) > _MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE + 1)


def _object_of(line: bytes, number: int) -> Values:
    """The JSON object on a line. Raises QuestionError."""
    if len(line) > _MAX_LINE:
        raise QuestionError(f"line {number} has more than {_MAX_LINE:,} bytes, which is not a question")
    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise QuestionError(f"line {number} is not UTF-8 text (byte {error.start + 1})") from None
    except _TwiceError as error:
        raise QuestionError(f"line {number} {error}") from None
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"line {number} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise QuestionError(f"line {number} is not a JSON object with a question")
    return value


def _object(pairs: list[tuple[str, Any]]) -> Values:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs if name in _KEYS]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise _TwiceError(f"has the key {twice!r} twice")
    return found


def _rows_of_parquet(uri: str, file: Any) -> Iterator[Raw]:
    try:
        parquet = pq.ParquetFile(file)
        wanted = _wanted(uri, parquet.schema_arrow)
        yield from _rows_of_batches(parquet.iter_batches(BATCH, columns=wanted))
    except pa.ArrowException as error:
        raise QuestionError(f"{uri}: starts as Parquet but cannot be read: {error}") from error


def _rows_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[Raw]:
    number = itertools.count(1)
    for batch in batches:
        yield from ((f"row-{next(number)}", value) for value in batch.to_pylist())


def _wanted(name: str, schema: pa.Schema) -> list[str]:
    """The columns to read. Raises QuestionError for a missing column or one of another type."""
    _require_question(name, schema.names)
    ids = [column for column in ("question_id", "id") if column in schema.names]
    wanted = [*ids[:1], "question"]
    for column in wanted:
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not (text or pa.types.is_null(kind) or (column != "question" and pa.types.is_integer(kind))):
            right = "text" if column == "question" else "text or whole numbers"
            raise QuestionError(f"{name}: column '{column}' is of type {kind}; make it {right}")
    return wanted


def _require_question(name: str, found: Sequence[str], row: str = "", key: str = "column") -> None:
    """Raises QuestionError if there is no column or key `question`."""
    if "question" in found:
        return
    has = f"no {row} has the key 'question'" if row else "has no column 'question'"
    like = next((each for each in found if each.strip().casefold() in {"question", "query", "prompt", "text"}), None)
    hint = f"; rename {like!r} to 'question'" if like else ""
    raise QuestionError(f"{name}: {has}; {key}s found: {', '.join(found) or 'none'}{hint}")
