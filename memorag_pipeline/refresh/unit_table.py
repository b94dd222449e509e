"""The table of units of a version, as JSON: which unit made which blobs, and from what.

In:  the tables of a version.
Out: its rows, each with `stage`, `fingerprint`, `blobs` and `counts`; those of `embed` also with `chunks` and
     `configuration`.
Wrong: rows that no refresh writes are a `CorruptBlobError` that names the blob.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.refresh.stages import EMBED, REFRESH
from memorag_pipeline.storage import BlobRef
from memorag_pipeline.storage.version_tables import Row, VersionTables

# Counts that follow from the fingerprint. Others, such as how much was reused, describe one run.
COUNTS = {stage.outcomes: stage.settled for stage in REFRESH if stage.settled}


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow")

    stage: str
    fingerprint: str
    blobs: dict[str, BlobRef]
    counts: dict[str, int]


_AT_ONCE = 16_384  # rows that are checked together

_ROWS = TypeAdapter(list[_Row])


def units_of(tables: VersionTables) -> list[Row]:
    """The rows of a version's units; none when they are lost, or in a version of an earlier release."""
    return [row for name, rows in tables.values("units") for row in _checked(rows, name)]


def _checked(rows: Any, name: str) -> list[Row]:
    """`rows` unchanged, if they are those of a table of units; `name` identifies it in an error."""
    if not isinstance(rows, list):
        raise _refused(name, "", "no list")
    for start in range(0, len(rows), _AT_ONCE):
        try:
            _ROWS.validate_python(rows[start : start + _AT_ONCE])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            number, *place = first["loc"]
            raise _refused(name, ".".join(map(str, (start + int(number), *place))), first["msg"]) from error
    found: list[Row] = rows
    for number, row in enumerate(found):
        if problem := _incomplete(row):
            raise _refused(name, str(number), problem)
    return found


def _incomplete(row: Row) -> str | None:
    """What is wrong with a row that has the right form, if something is. Rows are used as they are."""
    numbers = [*row["counts"].values(), *(blob["size"] for blob in row["blobs"].values())]
    if any(type(number) is not int for number in numbers):
        return "a count or a size is not a whole number"
    if any(count not in row["counts"] for count in COUNTS.get(row["stage"], ())):
        return "a count is missing"
    if row["stage"] == EMBED.outcomes and not ("chunks" in row and "configuration" in row):
        return "an input is missing"
    if not all(isinstance(row[name], str) for name in row.keys() - _Row.model_fields.keys()):
        return "an input is not text"
    return None


def _refused(name: str, place: str, problem: str) -> CorruptBlobError:
    return CorruptBlobError(
        f"{name}: no table of units that a refresh writes ({place}: {problem});"
        " restore it from a copy of the store, or refresh into another one"
    )
