"""Stage index: the vectors of all texts become one Faiss index, with a table that says which chunks have them.

In:  the plan, and the outcomes of its memorize and embed units.
Out: the plan with the blobs of its units, the index, the row table and the table of digests; with `retrieval.sparse`
     a sparse index, too.
Wrong: a unit that was not run, an index that cannot be trained on so few vectors or not be opened when it is written,
     no GPU where one is asked for.
"""

from __future__ import annotations

import bisect
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.known_units import KnownUnits, unit_rows
from memorag_pipeline.refresh.plans import IndexPlan, ShardPlan, StoredEmbeddings, StoredMemory
from memorag_pipeline.refresh.publish import manifest_blobs
from memorag_pipeline.refresh.stages import EMBED, EXTRACT, INDEX, MEMORIZE
from memorag_pipeline.retrieval.terms import TokenWeights
from memorag_pipeline.retrieval.vectors import vectors_of
from memorag_pipeline.storage import BlobRef, Blobs, Outcome, fingerprint

STAGE = INDEX.outcomes
STAGE_VERSION = 4  # to be raised also when `retrieval.terms` finds other terms

_CHUNK_COLUMNS = ["chunk_id", "document_id", "uri", "start", "end"]

_Numbers = list[npt.NDArray[np.int32]]


def build_index(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Index the vectors of a plan; returns the URI of the completed plan and the number of vectors."""
    plan = pipeline.read_work(plan_uri, ShardPlan)
    known = KnownUnits.of_plan(pipeline, plan)
    extracted = _outcomes(pipeline, known, EXTRACT.outcomes, plan.parts)
    memorized = _outcomes(pipeline, known, MEMORIZE.outcomes, [unit.fingerprint for unit in plan.memories])
    embedded = _outcomes(pipeline, known, EMBED.outcomes, [unit.fingerprint for unit in plan.embeddings])
    memories = tuple(
        StoredMemory(**{**dict(unit), "memory": outcome.blobs["memory"], "made_on": outcome.made_on})
        for unit, outcome in zip(plan.memories, memorized, strict=True)
    )
    embeddings = tuple(
        StoredEmbeddings(**dict(unit), embeddings=outcome.blobs["embeddings"])
        for unit, outcome in zip(plan.embeddings, embedded, strict=True)
    )
    unit = fingerprint(
        STAGE,
        STAGE_VERSION,
        embeddings=[unit.embeddings.model_dump() for unit in embeddings],
        chunks=[ref.model_dump() for ref in plan.chunks],
        sections=plan.sections.model_dump(),
        factory=pipeline.spec.index.factory,
        sparse=pipeline.spec.retrieval.sparse,
    )
    blobs = pipeline.store.blobs
    outcome = pipeline.store.units.find(STAGE, unit)
    if outcome is None:
        outcome = pipeline.store.units.record(_build(pipeline, unit, _parts(plan.chunks, embeddings), plan.sections))
    units = [
        *unit_rows(extracted),
        *unit_rows(memorized, made_on=[outcome.made_on for outcome in memorized]),
        *unit_rows(
            embedded,
            chunks=[unit.chunks.digest for unit in embeddings],
            configuration=[unit.configuration for unit in embeddings],
        ),
    ]
    values = {
        **dict(plan),
        "memories": memories,
        "embeddings": embeddings,
        "units": blobs.put_json(units),
        "index": outcome.blobs["index"],
        "index_rows": outcome.blobs["rows"],
        "digests": outcome.blobs["digests"],
        "sparse_index": outcome.blobs.get("sparse"),
    }
    indexed = IndexPlan(**values)
    held = set() if known.parent is None else known.parent.held
    fresh = sorted({blob.digest for blob in manifest_blobs(indexed)} - held)
    return {"plan": pipeline.write_work(indexed.model_copy(update={"fresh": tuple(fresh)})), "counts": outcome.counts}


def _outcomes(pipeline: Pipeline, known: KnownUnits, stage: str, fingerprints: Sequence[str]) -> list[Outcome]:
    """The outcomes of the units of an earlier stage."""
    found = []
    for unit, outcome in zip(fingerprints, known.find_all(stage, fingerprints), strict=True):
        if outcome is None:
            raise MemoragError(f"index: {stage} unit {unit} has no outcome in {pipeline.store.uri}; run {stage} first")
        found.append(outcome)
    return found


@dataclass(frozen=True)
class _Part:
    """A part that has chunks: its number among the version's chunk tables, and its tables."""

    number: int
    chunks: BlobRef
    embeddings: BlobRef


def _parts(chunks: Sequence[BlobRef], embeddings: Sequence[StoredEmbeddings]) -> list[_Part]:
    """A part without chunks has no embeddings, but counts."""
    numbers = {ref.digest: number for number, ref in enumerate(chunks)}
    return [_Part(numbers[unit.chunks.digest], unit.chunks, unit.embeddings) for unit in embeddings]


def _build(pipeline: Pipeline, unit: str, parts: Sequence[_Part], sections: BlobRef) -> Outcome:
    # Only here, because a refresh that changed no chunk need not wait for Faiss.
    from memorag_pipeline.retrieval import faiss_index

    started = time.perf_counter()
    blobs = pipeline.store.blobs
    numbers = _numbers(blobs, parts)
    rows = _rows(
        blobs, parts, numbers, _Sections(blobs.get_table(sections, ["shard_id", "document_id", "start"], "sections"))
    )
    distinct = sum(len(_first(numbers, part)) for part in range(len(parts)))
    first = next(_vectors(blobs, parts, numbers))[:1]
    index = faiss_index.build_index(
        pipeline.spec.index, first.shape[1], distinct, lambda: _vectors(blobs, parts, numbers)
    )
    stored = {"rows": blobs.put_table(rows)}
    with tempfile.TemporaryDirectory(prefix="memorag-index-") as folder:
        path = Path(folder) / "index"
        faiss_index.write_index(index, path)
        _require_searchable(path, pipeline.spec.index.factory, first, distinct)
        stored["index"] = blobs.put_file(path)
        if pipeline.spec.retrieval.sparse is not None:
            from memorag_pipeline.retrieval.sparse_index import build_sparse_index, build_token_index

            if pipeline.spec.retrieval.sparse == "model":
                build_token_index(_weights(blobs, parts, numbers), path)
            else:
                build_sparse_index(_texts(blobs, parts, numbers), path)
            stored["sparse"] = blobs.put_file(path)
    return Outcome(
        stage=STAGE,
        fingerprint=unit,
        blobs={**stored, "digests": blobs.put_table(_digests(blobs, parts))},
        counts={"vectors": distinct},
        seconds=time.perf_counter() - started,
    )


def _require_searchable(path: Path, factory: str, vectors: npt.NDArray[np.float32], count: int) -> None:
    """Open the index as readers of the version will: what cannot be opened must not be published."""
    from memorag_pipeline.retrieval.faiss_index import open_index

    try:
        index = open_index(path)
    except CorruptBlobError as error:
        raise MemoragError(
            f"index: what was made by index.factory {factory} cannot be opened ({error}); free disk space if there is"
            " none left, or set index.factory to Flat or HNSW32"
        ) from error
    _, rows = index.search(vectors, 1)
    if index.ntotal != count or rows.min() < 0:
        raise MemoragError(
            f"index: the index made by index.factory {factory} has {index.ntotal} of {count} vectors, or finds none of"
            " them; set index.factory to Flat or HNSW32"
        )


def _numbers(blobs: Blobs, parts: Sequence[_Part]) -> _Numbers:
    """For each part the numbers of its chunks' texts: equal texts, in whichever documents, are one vector."""
    columns = [
        blobs.cached_table(part.chunks, ["digest"], f"chunks of part {part.number}").column("digest") for part in parts
    ]
    digests = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    numbers = digests.cast(pa.large_string()).combine_chunks().dictionary_encode().indices.to_numpy()
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])


def _first(numbers: _Numbers, part: int) -> npt.NDArray[np.int64]:
    """The chunks of a part whose texts are in no earlier part, each text once, in order of their numbers."""
    known = max((int(before.max()) for before in numbers[:part]), default=-1)
    found, places = np.unique(numbers[part], return_index=True)
    return places[found > known]


def _vectors(blobs: Blobs, parts: Sequence[_Part], numbers: _Numbers) -> Iterator[npt.NDArray[np.float32]]:
    """For each part the vectors of the texts that no part before it has, [texts, dimensions]."""
    for table, places in _embeddings(blobs, parts, numbers, ["vector"]):
        yield vectors_of(table)[places]


def _weights(blobs: Blobs, parts: Sequence[_Part], numbers: _Numbers) -> Iterator[TokenWeights]:
    """The weights of the texts' tokens, in order of the texts' numbers."""
    for table, places in _embeddings(blobs, parts, numbers, ["terms", "weights"]):
        columns = (table.column(name).to_numpy()[places] for name in ("terms", "weights"))
        yield from map(TokenWeights, *columns)


def _embeddings(
    blobs: Blobs, parts: Sequence[_Part], numbers: _Numbers, columns: list[str]
) -> Iterator[tuple[pa.Table, npt.NDArray[np.int32]]]:
    """For each part that has texts which none before it has: its embedding table, and where in it they are."""
    for at, part in enumerate(parts):
        first = _first(numbers, at)
        if not len(first):
            continue
        chunks = blobs.cached_table(part.chunks, ["digest"], f"chunks of part {part.number}").take(first)
        table = blobs.cached_table(part.embeddings, ["digest", *columns], f"embeddings of part {part.number}")
        yield table, pc.index_in(chunks.column("digest"), table.column("digest").combine_chunks()).to_numpy()


def _digests(blobs: Blobs, parts: Sequence[_Part]) -> pa.Table:
    """Which embedding table holds which digests, so that the next refresh reads only tables with texts that moved."""
    tables = []
    for number, part in enumerate(parts):
        table = blobs.cached_table(part.embeddings, ["digest"], f"embeddings of part {part.number}")
        digests = [schemas.beginning(digest) for digest in table.column("digest").to_pylist()]
        columns = [pa.array(digests, pa.binary(8)), np.full(len(digests), number, np.int32)]
        tables.append(pa.table(columns, schema=schemas.DIGESTS))
    return pa.concat_tables(tables)


def _texts(blobs: Blobs, parts: Sequence[_Part], numbers: _Numbers) -> Iterator[str]:
    """The texts in order of their numbers."""
    for at, part in enumerate(parts):
        chunks = blobs.cached_table(part.chunks, ["text"], f"chunks of part {part.number}")
        yield from chunks.column("text").take(_first(numbers, at)).to_pylist()


def _rows(blobs: Blobs, parts: Sequence[_Part], numbers: _Numbers, sections: _Sections) -> pa.Table:
    """Chunk by chunk, which row of the index its text has, and which chunk of which part it is."""
    tables = []
    for part, rows in zip(parts, numbers, strict=True):
        chunks = blobs.cached_table(part.chunks, _CHUNK_COLUMNS, f"chunks of part {part.number}")
        places = zip(chunks.column("document_id").to_pylist(), chunks.column("start").to_pylist(), strict=True)
        columns = {
            **{name: chunks.column(name) for name in _CHUNK_COLUMNS},
            "row": rows.astype(np.int64),
            "shard_id": pa.array([sections.shard_of(*place) for place in places], pa.string()),
            "part": np.full(len(chunks), part.number, np.int32),
            "part_row": np.arange(len(chunks), dtype=np.int32),
        }
        tables.append(pa.table([columns[name] for name in schemas.INDEX_ROWS.names], schema=schemas.INDEX_ROWS))
    return pa.concat_tables(tables)


class _Sections:
    """Which shard holds a place in a document."""

    def __init__(self, sections: pa.Table) -> None:
        self._of_document: dict[str, list[tuple[int, str]]] = {}
        for row in sections.to_pylist():
            self._of_document.setdefault(row["document_id"], []).append((row["start"], row["shard_id"]))
        for places in self._of_document.values():
            places.sort()

    def shard_of(self, document_id: str, start: int) -> str:
        """The shard of the last section that starts at or before character `start`."""
        sections = self._of_document[document_id]
        return sections[bisect.bisect_right(sections, start, key=lambda section: section[0]) - 1][1]
