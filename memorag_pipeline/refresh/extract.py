"""Stage extract: source objects to documents and chunks, part by part.

In:  a work list of parts, each a range of inventory rows; the parent version, whose rows of unchanged documents are
     kept.
Out: for each part a document table, a chunk table and, if needed, a quarantine table.
Wrong: a document that cannot be read or parsed is a quarantine row with the reason. No connection to the source is a
       `StorageError`; a retry continues with the unfinished parts.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import TypeVar

import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.corpus.document_reader import ReadDocument
from memorag_pipeline.corpus.inventory import SourceObject
from memorag_pipeline.corpus.quarantine import Refused, advice
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.digests import bytes_digest, text_digest
from memorag_pipeline.machine.threads import TABLES
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, rate_text, track
from memorag_pipeline.refresh.extraction import STAGE, Extraction, unsettled
from memorag_pipeline.refresh.parent_version import Parent, object_of
from memorag_pipeline.refresh.plans import ExtractList, ExtractUnit
from memorag_pipeline.refresh.readers import Readers, processes_for
from memorag_pipeline.runs.tasks import at_work
from memorag_pipeline.storage import Outcome
from memorag_pipeline.storage.version_tables import Row

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


Advance = Callable[[float], None]


@dataclass
class _Rows:
    """The rows of a part, in any order."""

    documents: list[Row] = field(default_factory=list)
    chunks: list[Row] = field(default_factory=list)
    quarantine: list[Row] = field(default_factory=list)

    def only(self, wanted: Callable[[Row], bool]) -> _Rows:
        """Those of the rows that are wanted."""
        return _Rows(*(list(filter(wanted, rows)) for rows in (self.documents, self.chunks, self.quarantine)))


def extract(pipeline: Pipeline, batch_uri: str) -> dict[str, int]:
    """Extract the parts in a work list. Returns counts {"documents", "chunks", "quarantined", "reused"}."""
    batch = pipeline.read_work(batch_uri, ExtractList)
    totals = dict.fromkeys(("documents", "chunks", "quarantined", "reused"), 0)
    parent = None if batch.parent is None else Parent(pipeline, batch.parent)
    with (
        _PartExtractor(pipeline, parent, batch) as extractor,
        track("documents extracted or kept", sum(len(part.objects) for part in batch.units), "documents") as bar,
    ):
        for part, read in extractor.read(batch.units):
            with at_work([part.fingerprint], len(part.objects), bar.advance) as advance:
                outcome = extractor.run(part, read, advance, bar)
            for name in totals:
                totals[name] += outcome.counts[name]
            if extractor.bytes:
                logger.info("extracted %s so far, %s", bytes_text(extractor.bytes), extractor.pace())
    return totals


@dataclass(frozen=True, eq=False)
class _Begun:
    """A part of which it is known what is to be read: all its `objects` but the `reused` ones, whose rows `kept` gives.

    `earlier` is the outcome of a part that was done before. An `error` in finding this out is raised by its turn.
    """

    fingerprint: str
    objects: Sequence[SourceObject]
    earlier: Outcome | None = None
    reused: set[str] = field(default_factory=set)
    kept: Callable[[], _Rows] = _Rows
    error: Exception | None = None

    @property
    def fresh(self) -> list[SourceObject]:
        """The objects to be read."""
        if self.earlier is not None or self.error is not None:
            return []
        return [item for item in self.objects if item.document_id not in self.reused]


# Of an object: it, the digest of its bytes, None if they were not read, and its documents.
_Read = tuple[SourceObject, str | None, list[ReadDocument]]


class _PartExtractor:
    """Extracts the parts of a work list one after the other, and reads the next documents meanwhile, side by side.

    `bytes` are those of the documents that it has read.
    """

    def __init__(self, pipeline: Pipeline, parent: Parent | None, batch: ExtractList) -> None:
        self._blobs, self._units = pipeline.store.blobs, pipeline.store.units
        self._language = pipeline.spec.language
        self._source = Source(pipeline.spec.source)
        self._extraction = Extraction.of(pipeline)
        self._parent = parent
        self._reusable: dict[int, bool] = {}
        objects = [item for part in batch.units for item in part.objects]
        self._before = {} if parent is None else parent.inventory.among([item.document_id for item in objects])
        size = sum(item.size for item in objects if self._before.get(item.document_id) != item)
        processes = processes_for(size, pipeline.spec.compute.extract_processes)
        self._readers = Readers(self._extraction.reader, processes)
        self._ahead = max(TABLES, 2 * processes)
        self._threads = ThreadPoolExecutor(self._ahead)
        self.bytes, self._seconds = 0, 0.0

    def __enter__(self) -> _PartExtractor:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._readers.close()

    def pace(self) -> str:
        """The speed of reading so far."""
        return rate_text(self.bytes / 1e6 / max(self._seconds, 1e-9), "MB")

    def read(self, parts: Iterable[ExtractUnit]) -> Iterator[tuple[_Begun, Iterator[_Read]]]:
        """Each part with what is read of it; while one is recorded, documents of the next ones are read."""
        begun = map(self._begin, parts)
        # A part ends with no object, so that one of which nothing is read is there, too.
        wanted = ((part, item) for part in begun for item in (*part.fresh, None))
        done = _ahead(self._threads, self._documents, wanted, self._ahead)
        for part, results in groupby(done, key=lambda result: result[0][0]):
            yield part, ((item, *found) for (_, item), found in results if item is not None)

    def run(self, part: _Begun, read: Iterable[_Read], advance: Advance, bar: Bar) -> Outcome:
        """The outcome of one part, from the unit cache or done now.

        `advance` receives the numbers of documents done now, `bar` those of a part that was done before.
        """
        if part.error is not None:
            raise part.error
        if part.earlier is not None:
            bar.skip(len(part.objects))
            return part.earlier
        started = time.monotonic()
        rows, before = part.kept(), self.bytes
        advance(len(part.reused))
        for item, digest, found in read:
            for each in found:
                source = {"document_id": each.document_id, "uri": each.uri, "source_size": item.size}
                self._add_document(rows, {**source, "source_digest": digest}, each)
            self.bytes += item.size
            bar.read(item.size)
            advance(1)
        amounts = {"reused": len(part.reused), "bytes": self.bytes - before}
        outcome = self._record(part.fingerprint, rows, amounts, time.monotonic() - started)
        self._seconds += outcome.seconds
        return outcome

    def _begin(self, part: ExtractUnit) -> _Begun:
        begun = _Begun(part.fingerprint, part.objects)
        try:
            earlier = self._units.find(STAGE, part.fingerprint)
            if earlier is None:
                return self._known(begun)
            return self._settled(begun, earlier) if earlier.counts["unsettled"] else replace(begun, earlier=earlier)
        except Exception as error:
            return replace(begun, error=error)

    def _known(self, part: _Begun) -> _Begun:
        """With the objects that did not change since the parent version, which has their rows."""
        parent = self._parent
        if parent is None:
            return part
        same = [item.document_id for item in part.objects if self._before.get(item.document_id) == item]
        reused = {object_id for object_id in same if self._is_reusable(parent, parent.part_of(object_id))}
        refused = parent.refused(reused)
        reused -= {parent.object_of(row) for row in refused if unsettled([row])}

        def kept() -> _Rows:
            return _Rows(
                documents=parent.rows("documents", reused),
                chunks=parent.rows("chunks", reused),
                quarantine=[row for row in refused if parent.object_of(row) in reused],
            )

        return replace(part, reused=reused, kept=kept)

    def _settled(self, part: _Begun, earlier: Outcome) -> _Begun:
        """With the objects of the same unit, done before, but those that a passing cause left out."""
        ids = {item.document_id for item in part.objects}
        left_out = {
            object_of(row, ids.__contains__) for row in self._rows_of(earlier, "quarantine") if unsettled([row])
        }

        def kept() -> _Rows:
            found = _Rows(*(self._rows_of(earlier, role) for role in ("documents", "chunks", "quarantine")))
            return found.only(lambda row: object_of(row, ids.__contains__) not in left_out)

        return replace(part, reused=ids - left_out, kept=kept)

    def _rows_of(self, outcome: Outcome, role: str) -> list[Row]:
        if (ref := outcome.blobs.get(role)) is None:
            return []
        name = f"{role} of the part {outcome.fingerprint[:12]}"
        return list(self._blobs.cached_table(ref, None, name, schemas.OF_ROLE[role]).to_pylist())

    def _is_reusable(self, parent: Parent, part: int | None) -> bool:
        """Whether this code, spec and models would make the parent's part unchanged: it is the outcome of that unit."""
        if part is None:
            return False
        if part not in self._reusable:
            objects, documents = parent.part(part)
            outcome = self._units.find(STAGE, self._extraction.fingerprint(objects))
            self._reusable[part] = outcome is not None and outcome.blobs["documents"] == documents
        return self._reusable[part]

    def _read(self, item: SourceObject) -> bytes | Refused:
        """The bytes of the object that the inventory lists."""
        limit = self._extraction.byte_limit
        if item.size > limit:
            return Refused("too_large", f"has {item.size:,} bytes; source.max_document_mb admits {limit:,}")
        try:
            data, now = self._source.read(item.uri, limit)
        except Refused as refused:
            return refused
        # The outcome is kept under the listed identity, so it must not be made from other bytes.
        if now.identity != item.identity and not self._is_known(item, data):
            return Refused("download_failed", "changed since it was listed; the next refresh reads it")
        return data

    def _is_known(self, item: SourceObject, data: bytes) -> bool:
        """Whether these are the bytes of the parent's document: a touched object keeps the parent's inventory row."""
        if self._parent is None:
            return False
        return self._parent.source_digests([item.document_id]).get(item.document_id) == bytes_digest(data)

    def _documents(self, wanted: tuple[_Begun, SourceObject | None]) -> tuple[str | None, list[ReadDocument]]:
        """The digest of an object's bytes, None if they were not read, and its documents; runs in a thread."""
        _, item = wanted
        if item is None:
            return None, []
        document_id, uri, data = item.document_id, item.uri, self._read(item)
        if isinstance(data, Refused):
            return None, [ReadDocument(document_id, uri, data, [], [])]
        with self._readers.one() as reader:
            if self._source.holds_records(uri):
                return bytes_digest(data), list(reader.records(document_id, uri, data))
            return bytes_digest(data), [reader.document(document_id, uri, data)]

    def _add_document(self, rows: _Rows, source: Row, read: ReadDocument) -> None:
        document = read.document
        if isinstance(document, Refused):
            why = {"reason": document.reason, "detail": document.detail, "advice": advice(document.reason)}
            rows.quarantine.append({**source, **why})
            return
        document_id, uri, text = read.document_id, read.uri, document.text
        rows.documents.append(
            {
                **source,
                "title": document.title,
                "language": self._language,
                "media_type": document.media_type,
                "text_digest": text_digest(text),
                "characters": len(text),
                "tokens": sum(section.tokens for section in read.sections),
                "headings": [vars(heading) for heading in document.headings],
                "sections": [vars(section) for section in read.sections],
                "text": text,
            }
        )
        rows.chunks += [
            {"document_id": document_id, "uri": uri, "ordinal": ordinal, **vars(chunk)}
            for ordinal, chunk in enumerate(read.chunks)
        ]

    def _record(self, fingerprint: str, rows: _Rows, amounts: dict[str, int], seconds: float) -> Outcome:
        tables = {
            "documents": _table(rows.documents, schemas.DOCUMENTS),
            "chunks": _table(rows.chunks, schemas.CHUNKS),
            "quarantine": _table(rows.quarantine, schemas.QUARANTINE),
        }
        reasons = Counter(row["reason"] for row in rows.quarantine)
        return self._units.record(
            Outcome(
                stage=STAGE,
                fingerprint=fingerprint,
                blobs={
                    role: self._blobs.put_table(table)
                    for role, table in tables.items()
                    if role != "quarantine" or len(table)
                },
                counts={
                    "documents": len(rows.documents),
                    "chunks": len(rows.chunks),
                    "tokens": sum(row["tokens"] for row in rows.documents),
                    "quarantined": reasons.total(),
                    "unsettled": unsettled(rows.quarantine),
                    **amounts,
                },
                seconds=seconds,
            )
        )


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """The rows in order of URI (and of place in the document), whatever made them."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (row["uri"], row.get("ordinal", 0))), schema=schema)


def _ahead(pool: ThreadPoolExecutor, call: Callable[[T], R], items: Iterable[T], most: int) -> Iterator[tuple[T, R]]:
    """Each item with the result of `call`, at most so many of them computed ahead, so that few are in memory."""
    remaining = iter(items)
    waiting: deque[tuple[T, Future[R]]] = deque((item, pool.submit(call, item)) for item in islice(remaining, most))
    while waiting:
        item, future = waiting.popleft()
        yield item, future.result()
        waiting.extend((item, pool.submit(call, item)) for item in islice(remaining, 1))
