"""The objects of a source as columns: a row each, in order of URI, without a Python object for each of them.

In:  what listings say of objects, page by page; or the table of a version.
Out: an `Inventory`: its columns, and single objects on demand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest

_AT_ONCE = 16_384  # rows that are Python objects at a time


@dataclass(frozen=True)
class SourceObject:
    """One object of the source as listed. `modified` (ISO 8601, UTC) only counts if the store gives no etag."""

    uri: str
    size: int
    etag: str | None
    modified: str | None

    @cached_property
    def document_id(self) -> str:
        """Stable id of the document: 16 hex digits of the SHA-256 of its URI."""
        return document_id_of(self.uri)

    @property
    def identity(self) -> tuple[int, str | None]:
        """If this is equal, the content is taken as equal without reading it."""
        return self.size, self.etag or self.modified

    def row(self) -> dict[str, Any]:
        """The object as a row of the inventory."""
        return {
            "document_id": self.document_id,
            "uri": self.uri,
            "size": self.size,
            "etag": self.etag,
            "modified": self.modified,
        }


def document_id_of(uri: str) -> str:
    """Id of the document with this URI."""
    return text_digest(uri)[:16]


class Inventory:
    """Objects in order of URI, each once. `table` has the schema of the inventory."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, objects: Iterable[SourceObject]) -> Inventory:
        """Of these objects, in any order; of two with one URI the last counts."""
        listing = Listing()
        listing.add(objects)
        return listing.inventory()

    def __len__(self) -> int:
        rows: int = self.table.num_rows
        return rows

    @overload
    def __getitem__(self, place: int) -> SourceObject: ...
    @overload
    def __getitem__(self, place: slice) -> list[SourceObject]: ...
    def __getitem__(self, place: int | slice) -> SourceObject | list[SourceObject]:
        if isinstance(place, slice):
            return self._objects(*place.indices(len(self))[:2])
        return self._objects(place, place + 1)[0]

    def __iter__(self) -> Iterator[SourceObject]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._objects(start, start + _AT_ONCE)

    def column(self, name: str) -> pa.ChunkedArray:
        """One of its columns."""
        return self.table.column(name)

    def uris(self) -> Iterator[str]:
        """The URIs in order."""
        for chunk in self.column("uri").chunks:
            for start in range(0, len(chunk), _AT_ONCE):
                yield from chunk.slice(start, _AT_ONCE).to_pylist()

    @property
    def identities(self) -> pa.ChunkedArray:
        """Etags, or the time of objects without one."""
        etag = self.column("etag")
        return pc.coalesce(pc.if_else(pc.equal(etag, ""), pa.scalar(None, pa.string()), etag), self.column("modified"))

    def only(self, wanted: Any) -> Inventory:
        """The objects for which the mask is true."""
        return Inventory(self.table.filter(wanted).combine_chunks())

    def with_entries(self, others: Inventory, wanted: Any) -> Inventory:
        """With what `others` say of the same documents, row by row, where the mask is true."""
        columns = [
            pc.if_else(wanted, new, old) for new, old in zip(others.table.columns, self.table.columns, strict=True)
        ]
        return Inventory(pa.Table.from_arrays(columns, schema=schemas.INVENTORY).combine_chunks())

    def where(self, others: Inventory) -> pa.ChunkedArray:
        """For each object its place in `others`, null where it is not one of them."""
        return pc.index_in(self.column("document_id"), value_set=others.column("document_id"))

    def place(self, document_id: str) -> int | None:
        """The place of a document, if it is here."""
        ids, order = self._by_id
        found = int(np.searchsorted(ids, np.bytes_(document_id.encode())))
        return int(order[found]) if found < len(ids) and ids[found] == document_id.encode() else None

    def holds(self, document_id: str) -> bool:
        """Whether the document is here."""
        return self.place(document_id) is not None

    def among(self, document_ids: Collection[str]) -> dict[str, SourceObject]:
        """The objects of these documents that are here, by id."""
        wanted = pc.is_in(self.column("document_id"), value_set=pa.array(document_ids, pa.string()))
        return {item.document_id: item for item in self.only(wanted)}

    def runs(self, ranges: Sequence[range]) -> Iterator[list[list[Any]]]:
        """The rows of ranges in ascending order, range by range; a row is a list of its values."""
        waiting = list[range]()
        for number, part in enumerate(ranges):
            waiting.append(part)
            start = waiting[0].start
            if part.stop - start >= _AT_ONCE or number + 1 == len(ranges):
                rows = self._rows(start, part.stop)
                yield from (rows[each.start - start : each.stop - start] for each in waiting)
                waiting = []

    @cached_property
    def _by_id(self) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]]:
        """The ids in order, and the place of each."""
        ids = self.column("document_id").cast(pa.binary()).to_numpy().astype("S")
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    def _rows(self, start: int, stop: int) -> list[list[Any]]:
        columns = [column.to_pylist() for column in self.table.slice(start, stop - start).columns]
        return list(map(list, zip(*columns, strict=True)))

    def _objects(self, start: int, stop: int) -> list[SourceObject]:
        return [SourceObject(*row[1:]) for row in self._rows(start, stop)]


@dataclass(frozen=True)
class InventoryDifference:
    """How one inventory differs from an earlier one: the numbers of its objects, by kind, and `same`, a mask of those
    that are as they were.
    """

    added: int
    changed: int
    removed: int
    same: pa.ChunkedArray

    @classmethod
    def of(cls, now: Inventory, before: Inventory) -> InventoryDifference:
        """Objects are the same if all that is listed of them is."""
        places = now.where(before)
        old = before.table.take(places)
        same = pc.is_valid(places)
        for name in ("size", "etag", "modified"):
            same = pc.and_(same, equal(now.column(name), old.column(name)))
        added = places.null_count
        unchanged = pc.sum(same).as_py() or 0
        removed = len(before) - (len(now) - added)
        return cls(added, len(now) - added - unchanged, removed, same)


def equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are the same; two that are null are."""
    return pc.coalesce(pc.equal(left, right), pc.and_(pc.is_null(left), pc.is_null(right)))


class Listing:
    """What a listing has found so far, as columns."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []

    def add(self, objects: Iterable[SourceObject]) -> None:
        """Some more objects, in any order; those with a URI that is there already replace it."""
        rows = [(document_id_of(item.uri), item.uri, item.size, item.etag, item.modified) for item in objects]
        if rows:
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), schemas.INVENTORY, strict=True)
            ]
            self._batches.append(pa.RecordBatch.from_arrays(columns, schema=schemas.INVENTORY))

    def inventory(self) -> Inventory:
        """All of them."""
        table = pa.Table.from_batches(self._batches, schema=schemas.INVENTORY).combine_chunks()
        if not _ascending(table.column("uri")):
            table = table.take(pc.sort_indices(table, [("uri", "ascending")])).combine_chunks()  # a stable order
            uris = table.column("uri")
            is_last = pc.not_equal(uris.slice(0, len(uris) - 1), uris.slice(1)).to_numpy()
            table = table.filter(pa.array(np.append(is_last, True))).combine_chunks()
        return Inventory(table)


def _ascending(uris: pa.ChunkedArray) -> bool:
    """Whether each is before the next one."""
    return len(uris) < 2 or bool(pc.all(pc.less(uris.slice(0, len(uris) - 1), uris.slice(1))).as_py())
