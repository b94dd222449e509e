"""The table of units of a version, as JSON: which unit made which blobs, and from what.

In:  the tables of a version.
Out: its rows, each with `stage`, `fingerprint`, `blobs` and `counts`; those of `embed` also with `chunks` and
     `configuration`.
Wrong: rows that no refresh writes are a `CorruptBlobError` that names the blob.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

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

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = set(COUNTS.get(self.stage, ())) - self.counts.keys()
        inputs = self.model_extra or {}
        if missing or (self.stage == EMBED.outcomes and not {"chunks", "configuration"} <= inputs.keys()):
            raise ValueError("a count or an input is missing")
        if not all(isinstance(value, str) for value in inputs.values()):
            raise ValueError("an input is not text")
        return self


_ROWS = TypeAdapter(list[_Row])


def units_of(tables: VersionTables) -> list[Row]:
    """The rows of a version's units; none when they are lost, or in a version of an earlier release."""
    return [row for name, rows in tables.values("units") for row in _checked(rows, name)]


def _checked(rows: Any, name: str) -> list[Row]:
    """`rows` unchanged, if they are those of a table of units; `name` identifies it in an error."""
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise CorruptBlobError(
            f"{name}: no table of units that a refresh writes ({'.'.join(map(str, problem['loc']))}: {problem['msg']});"
            " restore it from a copy of the store, or refresh into another one"
        ) from error
    found: list[Row] = rows
    return found
