"""The rows of a job as a file for people, beside the warehouse (`jobs.<name>.export`).

In:  record batches of answers or summaries, read once; the run that wrote them.
Out: one object for each run, `{corpus}/{job}/{run}-v{version}.csv` (or .xlsx, .parquet), complete or absent.
Wrong: more rows than a sheet has: `ExportError`. A store that refuses the object: `StorageError`.

Parquet holds the rows as they are. A table for people has no lists: passages are the column `sources`, clues are left
out. A text can never become a formula: a workbook stores it as text, a CSV file quotes it behind an apostrophe.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.errors import ExportError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.jobs import ExportSpec
from memorag_pipeline.storage import ObjectStore
from memorag_pipeline.storage.credentials import options_for

SHEET_ROWS = 1_048_575  # below the names
_CELL = 32_767  # characters
_LISTS = ("clues",)  # left out of tables for people
# What a spreadsheet may take for a formula, in half and full width, behind characters that it may skip.
_FORMULA = re.compile("[\\s\x00-\x1f\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]")

Batches = Iterable[pa.RecordBatch]


class Export:
    """Where a job's rows go beside the warehouse."""

    def __init__(self, spec: ExportSpec) -> None:
        self._spec = spec
        self._objects = ObjectStore(spec.uri, options_for(spec))

    def check(self, rows: int) -> None:
        """Refuse what could not be written, before the job's rows are loaded."""
        if self._spec.format == "xlsx" and rows > SHEET_ROWS:
            raise ExportError(
                f"{self._objects.uri}: a sheet has room for {SHEET_ROWS:,} rows, not for {rows:,}; set format: parquet"
                " or csv in the job's export"
            )

    def write(self, pipeline: Pipeline, job: str, version: int, run: Run, schema: pa.Schema, batches: Batches) -> str:
        """Write the object, replacing that of an earlier attempt of the run; returns its URI."""
        key = f"{pipeline.spec.corpus}/{job}/{run.name}-v{version}.{self._spec.format}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows"
            _WRITERS[self._spec.format](path, schema, batches)
            if not self._objects.create_from_file(key, path):
                self._objects.delete(key)
                self._objects.create_from_file(key, path)
        return self._objects.uri_of(key)


def as_text(value: str) -> str:
    """`value` as a cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{value}" if _FORMULA.match(value) else value


def _write_csv(path: Path, schema: pa.Schema, batches: Batches) -> None:
    # With its mark, without which spreadsheets take UTF-8 for another encoding. All texts are quoted, or one with the
    # separator of another country would be cut, and its rest could be a formula.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(_names(schema))
        for cells in _rows(schema, batches):
            writer.writerow([as_text(cell) if isinstance(cell, str) else cell for cell in cells])


def _write_xlsx(path: Path, schema: pa.Schema, batches: Batches) -> None:
    import xlsxwriter

    with xlsxwriter.Workbook(path, {"constant_memory": True, "tmpdir": str(path.parent)}) as book:
        sheet = book.add_worksheet("rows")
        sheet.freeze_panes(1, 0)
        sheet.write_row(0, 0, _names(schema))
        for number, cells in enumerate(_rows(schema, batches), 1):
            for column, cell in enumerate(cells):
                if isinstance(cell, str):
                    sheet.write_string(number, column, _fitting(cell))
                elif cell is not None:
                    sheet.write_number(number, column, cell)


def _write_parquet(path: Path, schema: pa.Schema, batches: Batches) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


_WRITERS: dict[str, Callable[[Path, pa.Schema, Batches], None]] = {
    "csv": _write_csv,
    "xlsx": _write_xlsx,
    "parquet": _write_parquet,
}


def _names(schema: pa.Schema) -> list[str]:
    return ["sources" if name == "evidence" else name for name in schema.names if name not in _LISTS]


def _rows(schema: pa.Schema, batches: Batches) -> Iterator[list[Any]]:
    """The cells of each row: texts, numbers and None."""
    names = [name for name in schema.names if name not in _LISTS]
    for batch in batches:
        for row in batch.select(names).to_pylist():
            yield [_cell(name, row[name]) for name in names]


def _cell(name: str, value: Any) -> Any:
    if name == "evidence":
        return "\n".join(_source(number, passage) for number, passage in enumerate(value, 1) if passage.get("used"))
    return "\n".join(value) if isinstance(value, list) else value


def _source(number: int, passage: Mapping[str, Any]) -> str:
    return f"[{passage.get('number', number)}] {passage['uri']}"


def _fitting(text: str) -> str:
    """`text`, cut visibly if it is longer than a cell of a sheet."""
    if len(text.encode("utf-16-le")) // 2 <= _CELL:
        return text
    end = f" … (cut: {len(text):,} characters, more than a cell holds)"
    kept = text.encode("utf-16-le")[: (_CELL - len(end)) * 2].decode("utf-16-le", "ignore")
    return kept + end
