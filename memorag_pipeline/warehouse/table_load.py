"""One table of a load: its rows as a stream, and which rows of the warehouse they replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError


@dataclass(frozen=True)
class TableLoad:
    """Rows for one table of the warehouse.

    schema: of the rows. batches: the rows, read once, a batch in memory at a time. key: the columns that identify a
    row; none of them may be null.

    A row replaces the one with the same key. With `replaces` and `of`, all rows are deleted whose columns `replaces`
    equal those of any row that the same load brings for the table `of` (there in the columns `like`, if they have other
    names): the passages of answers that are loaded again, or all rows of a corpus. Columns named in `keeps` are copied
    from the previous row with the same key.

    `latest` makes a view `latest_<table>`: for each value of these columns the rows of the highest `corpus_version`.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    key: tuple[str, ...]
    replaces: tuple[str, ...] = ()
    of: str | None = None
    like: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = {*self.key, *self.replaces, *self.keeps, *self.latest}
        if not self.key or (missing := sorted(named - set(self.schema.names))):
            raise WarehouseError(f"a table to load has no column {', '.join(missing) if self.key else 'as its key'}")
