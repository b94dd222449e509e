"""Files of records: each record of a JSON, JSONL, CSV, TSV or XML file is a separate document.

In:  the name of an object, its bytes, the section `source.records` of the spec.
Out: for each record its id and a `DocumentText`, or why it has none: one bad record costs one record.
Wrong: a file that does not hold records: `Refused`.

The bytes decide the format: `<` begins XML, `{` or `[` JSON or JSON lines, everything else is a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from memorag_pipeline.corpus.delimited import delimited_rows
from memorag_pipeline.corpus.embedded_data import without_data
from memorag_pipeline.corpus.json_values import json_value
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.text import DocumentText, Plain
from memorag_pipeline.specs.source import RecordsSpec

_LINES = {".jsonl", ".ndjson"}
_MOST_ID = 200  # characters

Record = Any  # a JSON value; for a table, an object of its cells


def _wants_all(number: int, record_id: str) -> bool:
    return True


def read_records(
    plain: Plain, spec: RecordsSpec, parser: Parser, wants: Callable[[int, str], bool] = _wants_all
) -> Iterator[tuple[str, DocumentText | Refused]]:
    """The records of a file in order, each with an id that is unique in the file.

    `wants` is called with the number and the id of each record before its text is made, and may reject it.
    """
    media_type, found = _records(plain, spec, parser)
    seen: set[str] = set()
    for number, record in enumerate(found):
        record_id, refused = _identified(number, record, spec, seen)
        seen.add(record_id)
        if not wants(number, record_id):
            continue
        try:
            document = refused or _document(plain.path, media_type, number, record_id, record, spec)
        except RecursionError:
            document = Refused("bad_record", f"record {number} nests too deep")
        yield record_id, document


def _identified(number: int, record: Record | Refused, spec: RecordsSpec, seen: set[str]) -> tuple[str, Refused | None]:
    """The id of a record, and the problem with it, as far as known yet."""
    if isinstance(record, Refused):
        return _unused(str(number), seen), record
    try:
        record_id = str(number) if spec.id is None else _one_line(_field(record, spec.id))[:_MOST_ID]
    except RecursionError:
        return _unused(str(number), seen), Refused("bad_record", f"record {number} nests too deep in {spec.id}")
    if not record_id:
        return _unused(str(number), seen), Refused("bad_record", f"record {number} has no {spec.id}")
    if record_id in seen:
        refused = Refused("bad_record", f"record {number} has the id of a record before it, {record_id}")
        return _unused(f"{record_id}~{number}", seen), refused
    return record_id, None


def _unused(record_id: str, seen: set[str]) -> str:
    while record_id in seen:
        record_id += "~"
    return record_id


def _document(
    path: PurePosixPath, media_type: str, number: int, record_id: str, record: Record, spec: RecordsSpec
) -> DocumentText | Refused:
    if spec.text:
        text = "\n\n".join(filter(None, (_as_text(_field(record, field)) for field in spec.text)))
    else:
        text = _all_fields(record)
    text = without_data(text)
    if not text.strip():
        wanted = ", ".join(spec.text) or "any field"
        return Refused("bad_record", f"record {number} has no text in {wanted}")
    title = _one_line(_field(record, spec.title))[:200] if spec.title else ""
    return DocumentText(text, media_type, title or f"{path.stem} {record_id}", [])


def _records(plain: Plain, spec: RecordsSpec, parser: Parser) -> tuple[str, Iterator[Record | Refused]]:
    start = plain.text.lstrip()[:1]
    if start == "<":
        return "application/xml", parser.records(plain.text.encode(), spec.at or "")
    if start in {"{", "["} or plain.path.suffix.lower() in _LINES:
        return "application/json", _json_records(plain.text, spec.at)
    return "text/csv", _table_records(plain)


def _json_records(text: str, at: str | None) -> Iterator[Record | Refused]:
    """The list that the file is or holds `at` a path; else its lines, if more than one; else the value itself."""
    try:
        value = json_value(text)
    except RecursionError:
        raise Refused("bomb", "is JSON that nests without end") from None
    except ValueError as error:
        records = [_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        # Single lines of broken multi-line JSON may happen to be JSON, too.
        if sum(isinstance(record, dict | list) for record in records) * 2 < len(records):
            raise Refused("unreadable", f"is neither JSON nor lines of JSON: {error}") from None
        return iter(records)
    if at is not None:
        value = _field(value, at)
        if value is None:
            raise Refused("unreadable", f"has nothing at {at} (source.records.at)")
    return iter(value if isinstance(value, list) else [value])


def _line(number: int, line: str) -> Record | Refused:
    try:
        return json_value(line)
    except (ValueError, RecursionError) as error:
        return Refused("bad_record", f"line {number} is not JSON: {error}")


def _table_records(plain: Plain) -> Iterator[Record | Refused]:
    try:
        _, rows = delimited_rows(plain.text)
    except ValueError as error:
        raise Refused("unreadable", str(error)) from None
    for row in rows:
        if row.cells is None:
            yield Refused("bad_record", f"the row in line {row.line} {row.problem}")
        else:
            yield row.cells


def _field(record: Record, path: str) -> Any:
    """The value at a dotted path; a name that has dots itself takes precedence; lists are searched."""
    if isinstance(record, dict):
        if path in record:
            return record[path]
        name, _, rest = path.partition(".")
        return _field(record[name], rest) if rest and name in record else None
    if isinstance(record, list):
        found = [value for each in record if (value := _field(each, path)) is not None]
        # Nested lists are flattened, such as paragraphs within sections.
        return [item for value in found for item in (value if isinstance(value, list) else [value])] or None
    return None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return _as_text(value["#"]) if "#" in value else _all_fields(value)
    if isinstance(value, list):
        return "\n\n".join(filter(None, map(_as_text, value)))
    return str(value)


def _all_fields(record: Record) -> str:
    """A record as lines of name and value."""
    if not isinstance(record, dict):
        return _as_text(record)
    lines = [(name, _as_text(value)) for name, value in record.items()]
    return "\n".join(f"{name}: {text}" for name, text in lines if text.strip())


def _one_line(value: Any) -> str:
    return " ".join(_as_text(value).split())
