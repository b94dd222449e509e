"""What reading and publishing a version costs as the number of documents grows: CPU seconds and memory, by command.

| row        | measured                                                                                            |
|------------|-----------------------------------------------------------------------------------------------------|
| inventory  | stage inventory of a first build, without the listing of the source: all parts in work lists        |
| shard      | stage shard, one document in a hundred changed, with work lists of all memories                     |
| publish    | the stage's commit of a manifest, most of whose blobs the parent has                                |
| open       | `open_version`, until the manifest is read                                                          |
| versions   | `memorag versions`                                                                                  |
| show       | `memorag show`                                                                                      |
| documents  | `memorag documents DOCUMENT`: one of them, by URI                                                   |
| diff       | `memorag diff` with the parent, one document in a hundred changed                                   |
| status     | `memorag status` of a run that has ended                                                            |
| report     | the facts of the report of the refresh                                                              |
| record     | the columns of the run's row for a warehouse                                                        |
| digest     | the digest of the published source, for a watcher                                                   |
| unchanged  | stage inventory where nothing changed, without the listing of the source                            |
| forecast   | `memorag refresh --dry-run` where one document in a hundred changed, likewise                        |
| missing    | finding that all blobs of the version are there                                                     |

The versions are made up: their inventory, sections, shards, units and manifest are those of a corpus of short documents
of 1,800 tokens in shards of at most 4,096; tables of parts and memories hold a few bytes, but for those parts that
changed. The store is a local folder. Run on an idle machine, a minute for each 100,000 documents:
python -m benchmarks.growth --documents 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from benchmarks.figures import Report
from benchmarks.timing import device_name, peak_growth
from memorag_pipeline import schemas
from memorag_pipeline.cli import documents, status, versions
from memorag_pipeline.corpus.inventory import Inventory, SourceObject
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.digests import canonical_json
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.forecast import forecast
from memorag_pipeline.refresh.gpu_units import MemoryFingerprints, embedding_configuration
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.parent_version import group_documents
from memorag_pipeline.refresh.plans import EmbedUnit, InventoryPlan, PlannedMemory, ShardPlan
from memorag_pipeline.refresh.publish import manifest_of
from memorag_pipeline.refresh.record import _version_columns
from memorag_pipeline.refresh.shard import plan_shards
from memorag_pipeline.refresh.source_digest import published_digest
from memorag_pipeline.reports.refresh_facts import of_version
from memorag_pipeline.runs.tasks import Run, Task, run_task
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob, Outcome

TOKENS, CHUNKS = 1800, 14  # of a document
PART = {"documents": 16, "chunks": 224, "tokens": 28_800, "quarantined": 0, "unsettled": 0}
CHANGED = 100  # one document in so many, all of them neighbours


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.growth"
    )
    parser.add_argument("--documents", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--shard-tokens", type=int, default=4096, help="the most tokens of a shard of the versions")
    parser.add_argument("--mode", choices=["exact", "delta"], default="exact")
    parser.add_argument("--only", nargs="+", help="names of rows; all by default; those after publish only with it")
    parser.add_argument("--append", type=Path, help="file for the lines of JSON")
    given = parser.parse_args(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    report = Report("growth", {"device": device_name(), "cores": os.cpu_count()}, given.append)
    for count in given.documents:
        with tempfile.TemporaryDirectory(prefix="memorag-growth-") as folder:
            os.environ["MEMORAG_CACHE"] = f"{folder}/cache"
            corpus = MadeUp(Path(folder, "store"), count, given.shard_tokens, given.mode)
            measure(corpus, given.only, report)


def measure(corpus: MadeUp, only: Sequence[str] | None, report: Report) -> None:
    """The rows for a corpus."""
    count = corpus.count
    settings = {"documents": count, "shard_tokens": corpus.shard_tokens, "mode": corpus.mode}

    def row(name: str, call: Callable[[], object]) -> None:
        if only and name not in only:
            return
        taken: list[float] = []

        def timed() -> None:
            before, started = time.process_time(), time.perf_counter()
            with redirect_stdout(StringIO()):
                call()
            taken.extend((time.process_time() - before, time.perf_counter() - started))

        memory = peak_growth(timed) / 2**20
        values = {"cpu_seconds": taken[0], "seconds": taken[1], "mib": memory}
        rounded = {key: round(value, 4) for key, value in values.items()}
        report.write({"benchmark": "growth", "row": name, **settings, **rounded})
        print(f"{name:<10} {count:>10,} {taken[0]:8.2f} s CPU {memory:8.0f} MiB", file=sys.stderr, flush=True)

    def listed(edition: str, call: Callable[[], object]) -> Callable[[], object]:
        inventory = corpus.inventory(edition)

        def called() -> object:
            with patch.object(Source, "list", lambda _: inventory):
                return call()

        return called

    pipeline = corpus.pipeline
    uri = pipeline.store.uri
    take = listed("a", lambda: take_inventory(Pipeline(pipeline.spec)))
    row("inventory", take)
    number = corpus.publish("a")
    changed = corpus.manifest("b")
    take()  # imports, and digests of model files
    row("shard", lambda: plan_shards(Pipeline(pipeline.spec), corpus.inventoried))
    row("unchanged", take)
    row("digest", lambda: published_digest(pipeline))
    row("forecast", listed("b", lambda: forecast(Pipeline(pipeline.spec))))
    versions_of = pipeline.store.versions
    row("publish", lambda: versions_of.publish(changed, "b", base=number, fresh=corpus.fresh))
    row("missing", lambda: versions_of.missing(changed))
    if only and "publish" not in only:
        return  # the others need the second version
    row("open", lambda: OpenedVersion(pipeline.store, number))
    row("versions", lambda: versions.versions(uri, last=20))
    row("show", lambda: versions.show(uri))
    row("documents", lambda: documents.documents(uri, corpus.uri(0)))
    row("diff", lambda: versions.diff(uri, "1", "2"))
    corpus.report()
    row("status", lambda: status.status(uri))
    row("report", lambda: of_version(pipeline.store, 2))
    row("record", lambda: _version_columns(pipeline, 2, is_new=True))
    sizes = {blob.path: blob.size for blob in changed.blobs}
    sizes["plan"] = pipeline.store.blobs.ref_of(corpus.plan()).size
    stored = versions_of.record(2).manifest.size
    report.write({"benchmark": "growth", "row": "bytes", **settings, "manifest": stored, **_lists(sizes)})
    shown = ", ".join(f"{name} {size:,}" for name, size in _lists(sizes).items())
    print(f"bytes      {count:>10,} manifest {stored:,}, {shown}", file=sys.stderr, flush=True)


def _lists(sizes: dict[str, int]) -> dict[str, int]:
    return {
        path: sizes[path] for path in ("inventory.parquet", "units.json", "sections.parquet", "shards.parquet", "plan")
    }


class MadeUp:
    """A corpus of many documents in two editions, "a" and "b", of which only the lists are real."""

    def __init__(self, folder: Path, count: int, shard_tokens: int, mode: str) -> None:
        self.count, self.shard_tokens, self.mode = count, shard_tokens, mode
        self.pipeline = Pipeline(_spec(folder, shard_tokens, mode))
        self.inventoried = ""  # the plan of the inventory of the last edition
        self.fresh: set[str] = set()
        self._blobs = self.pipeline.store.blobs
        self._folder = Path(folder, "growth")
        self._extraction = Extraction.of(self.pipeline)
        self._plans: dict[str, ShardPlan] = {}

    def uri(self, number: int) -> str:
        return f"memory://corpus/{number // 1000:05d}/{number:08d}.md"

    def inventory(self, edition: str) -> Inventory:
        """As a listing gives it."""
        changed = self.count // CHANGED if edition == "b" else 0
        return Inventory.of(
            SourceObject(self.uri(number), 7200 + (number < changed), f"{number:031x}{number < changed:d}", None)
            for number in range(self.count)
        )

    def publish(self, edition: str) -> int:
        return self.pipeline.store.versions.publish(self.manifest(edition), edition).version

    def manifest(self, edition: str) -> Manifest:
        """The manifest of an edition, whose blobs are stored."""
        inventory = self.inventory(edition)
        with patch.object(Source, "list", lambda _: inventory):
            self.inventoried = take_inventory(self.pipeline)["plan"]
        plan = self.pipeline.read_work(self.inventoried, InventoryPlan)
        ranges = group_documents(inventory, self.pipeline.spec.source.documents_per_part)
        changed = {number for number, part in enumerate(ranges) if part.start < max(self.count // CHANGED, 1)}
        parts = {role: self._parts(role, plan, changed, inventory, ranges) for role in ("documents", "chunks")}
        self._extract(plan, parts, changed)
        vectors = [self._stub(f"vectors of {name}") for name in plan.parts]
        most = self.shard_tokens // TOKENS or 1
        groups = [range(at, min(at + most, self.count)) for at in range(0, self.count, most)]
        etags = inventory.column("etag").to_pylist()
        contents = [_digest(f"{number} {etag}")[:32] for number, etag in enumerate(etags)]
        shards = [_digest(" ".join(contents[group.start : group.stop]))[:16] for group in groups]
        prints = MemoryFingerprints(self._extraction)
        memories = [
            PlannedMemory(
                shard_id=shard,
                kind="base",
                tokens=TOKENS * len(group),
                stale_tokens=0,
                made_on="cpu:x86_64:float32",
                fingerprint=prints.of(contents[group.start : group.stop]),
            )
            for shard, group in zip(shards, groups, strict=True)
        ]
        made = [self._stub(f"memory {memory.fingerprint}") for memory in memories]
        configuration = embedding_configuration(self._extraction)
        embeds = [
            EmbedUnit(fingerprint=_digest(f"embed {ref.digest}"), configuration=configuration, chunks=ref)
            for ref in parts["chunks"]
        ]
        units = self._units(plan, parts, embeds, vectors, memories, made)
        tables = self._tables(inventory, ranges, groups, shards, contents)
        self._plans[edition] = ShardPlan(
            **dict(plan),
            documents=tuple(parts["documents"]),
            chunks=tuple(parts["chunks"]),
            quarantine=(),
            shards=tables["shards"],
            sections=tables["sections"],
            memories=tuple(memories),
            embeddings=tuple(embeds),
            counts={},
        )
        blobs = [
            _blob("inventory", "inventory.parquet", plan.inventory),
            *_numbered("documents", parts["documents"]),
            *_numbered("chunks", parts["chunks"]),
            _blob("shards", "shards.parquet", tables["shards"]),
            _blob("sections", "sections.parquet", tables["sections"]),
            _blob("units", "units.json", units),
            *(_blob("memory", f"memories/{shard}.safetensors", ref) for shard, ref in zip(shards, made, strict=True)),
            *_numbered("embeddings", vectors),
        ]
        if edition == "b":
            self.fresh = {blob.digest for blob in blobs} - {blob.digest for blob in self._first}
        else:
            self._first = blobs
        spec = self.pipeline.settled
        counts = {
            "documents": self.count,
            "chunks": CHUNKS * self.count,
            "quarantined": 0,
            "shards": len(shards),
            "tokens": TOKENS * self.count,
        }
        return manifest_of(spec, plan, blobs, counts, memories)

    def plan(self) -> str:
        """The plan after stage shard of the second edition."""
        return self.pipeline.write_work(self._plans["b"])

    def report(self) -> None:
        """The reports of a run that has made the second edition."""
        run, store = Run("growth", datetime.now(UTC)), self.pipeline.store
        plan = self.plan()
        for stage in ("inventory", "shard", "index"):
            run_task(store, Task(run, stage), lambda: {"plan": plan, "changed": True})
        run_task(store, Task(run, "publish"), lambda: {"version": 2, "created": True})

    def _parts(
        self, role: str, plan: InventoryPlan, changed: set[int], inventory: Inventory, ranges: Sequence[range]
    ) -> list[BlobRef]:
        """The tables of a role, real ones for parts that change."""
        make = _documents if role == "documents" else _chunks
        return [
            self._blobs.put_table(make(inventory[ranges[number].start : ranges[number].stop]))
            if number in changed
            else self._stub(f"{role} of {name}")
            for number, name in enumerate(plan.parts)
        ]

    def _extract(self, plan: InventoryPlan, parts: dict[str, list[BlobRef]], numbers: Iterable[int]) -> None:
        """Record the units of parts that change as stage extract does."""
        for number in numbers:
            blobs = {role: refs[number] for role, refs in parts.items()}
            unit = Outcome(stage="extract", fingerprint=plan.parts[number], blobs=blobs, counts=PART, seconds=1)
            self.pipeline.store.units.record(unit)

    def _stub(self, content: str) -> BlobRef:
        """A blob of a few bytes, written as the store has it but without waiting for the disk."""
        data = content.encode()
        ref = BlobRef.model_construct(digest=hashlib.sha256(data).hexdigest(), size=len(data))
        path = self._folder / ref.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return ref

    def _units(
        self,
        plan: InventoryPlan,
        parts: dict[str, list[BlobRef]],
        embeds: Sequence[EmbedUnit],
        vectors: Sequence[BlobRef],
        memories: Sequence[PlannedMemory],
        made: Sequence[BlobRef],
    ) -> BlobRef:
        rows: list[dict[str, Any]] = [
            {
                "stage": "extract",
                "fingerprint": name,
                "blobs": {"documents": documents.model_dump(), "chunks": chunks.model_dump()},
                "counts": PART,
            }
            for name, documents, chunks in zip(plan.parts, parts["documents"], parts["chunks"], strict=True)
        ]
        rows += [
            {
                "stage": "memorize",
                "fingerprint": memory.fingerprint,
                "blobs": {"memory": ref.model_dump()},
                "counts": {"tokens": memory.tokens},
            }
            for memory, ref in zip(memories, made, strict=True)
        ]
        rows += [
            {
                "stage": "embed",
                "fingerprint": unit.fingerprint,
                "blobs": {"embeddings": ref.model_dump()},
                "counts": {"chunks": 224},
                "chunks": unit.chunks.digest,
                "configuration": unit.configuration,
            }
            for unit, ref in zip(embeds, vectors, strict=True)
        ]
        return self._blobs.put_bytes(canonical_json(rows))

    def _tables(
        self,
        inventory: Inventory,
        ranges: Sequence[range],
        groups: Sequence[range],
        shards: Sequence[str],
        contents: Sequence[str],
    ) -> dict[str, BlobRef]:
        """The tables of shards and sections: a section for each document."""
        holders = [shard for shard, group in zip(shards, groups, strict=True) for _ in group]
        columns: dict[str, Iterable[Any]] = {
            "document_id": inventory.column("document_id"),
            "uri": inventory.column("uri"),
            "start": [0] * self.count,
            "end": [7200] * self.count,
            "tokens": [TOKENS] * self.count,
            "content": contents,
            "shard_id": holders,
            "key": [content[:16] for content in contents],
            "text": contents,
            "part": [number for number, part in enumerate(ranges) for _ in part],
            "ordinal": [place for group in groups for place in range(len(group))],
            "earlier_uris": [[]] * self.count,
            "stale": [False] * self.count,
        }

        def table(schema: pa.Schema) -> BlobRef:
            values = [_column(columns[field.name], field.type) for field in schema]
            return self._blobs.put_table(pa.table(values, schema=schema))

        return {"shards": table(schemas.SHARDS), "sections": table(schemas.SECTIONS)}


def _column(values: Any, kind: pa.DataType) -> Any:
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)


def _documents(items: Sequence[SourceObject]) -> pa.Table:
    row = {"title": "Title", "language": "en", "media_type": "text/markdown", "source_size": 7200, "characters": 7200}
    rows = [
        {
            **row,
            "document_id": item.document_id,
            "uri": item.uri,
            "source_digest": _digest(str(item.etag)),
            "text_digest": _digest(f"text {item.etag}"),
            "tokens": TOKENS,
            "headings": [],
            "sections": [{"start": 0, "end": 7200, "tokens": TOKENS}],
            "text": f"{item.etag} " * 225,
        }
        for item in items
    ]
    return pa.Table.from_pylist(rows, schema=schemas.DOCUMENTS)


def _chunks(items: Sequence[SourceObject]) -> pa.Table:
    rows = [
        {
            "chunk_id": _digest(f"{item.etag} {number}")[:16],
            "document_id": item.document_id,
            "uri": item.uri,
            "ordinal": number,
            "start": number * 514,
            "end": number * 514 + 514,
            "tokens": 128,
            "digest": _digest(f"chunk {item.etag} {number}"),
            "text": f"{item.etag} " * 16,
        }
        for item in items
        for number in range(CHUNKS)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.CHUNKS)


def _numbered(role: str, refs: Sequence[BlobRef]) -> list[ManifestBlob]:
    return [_blob(role, f"{role}/{number:05d}.parquet", ref) for number, ref in enumerate(refs)]


def _blob(role: str, path: str, ref: BlobRef) -> ManifestBlob:
    return ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _spec(folder: Path, shard_tokens: int, mode: str) -> CorpusSpec:
    return CorpusSpec.model_validate(
        {
            "corpus": "growth",
            "source": {"uris": ["memory://corpus"]},
            "store": {"uri": str(folder)},
            "sharding": {"max_tokens": min(shard_tokens, 4096)},  # what the model can hold; row shard plans so
            "refresh": {"mode": mode},
            "memory": {"kind": "full", "model": "package:smollm2-135m-instruct"},
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
        }
    )


if __name__ == "__main__":
    main()
