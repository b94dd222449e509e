"""From chunk tables through the index stage to passages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.embed import embed
from memorag_pipeline.refresh.index import build_index
from memorag_pipeline.retrieval import faiss_index
from memorag_pipeline.retrieval.search import IndexSegments, Searcher, open_searcher
from memorag_pipeline.retrieval.segment import Segment, SegmentFiles, open_segment
from memorag_pipeline.retrieval.segment_rows import RowTable
from memorag_pipeline.retrieval.shard_places import ShardPlaces
from memorag_pipeline.retrieval.sparse_index import build_sparse_index
from memorag_pipeline.retrieval.terms import terms_of
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from memorag_pipeline.storage import BlobRef, Outcome
from memorag_pipeline.storage.parquet import open_table
from tests.retrieval.chunk_tables import (
    Documents,
    chunk_table,
    document_id,
    embed_batch,
    index_plan,
    paragraphs,
)
from tests.storage.work_json import read_json, write_json

DIGEST = resolve("package:all-minilm-l6-v2").digest
LAMBDA, WHILE, GLOBAL = paragraphs("lambda")[:1], paragraphs("while")[:3], paragraphs("global")[:2]
PARTS: list[Documents] = [{"lambda": LAMBDA, "while": WHILE}, {"copy": LAMBDA, "global": GLOBAL}]
SECOND = len(WHILE[0]) + 1  # where the second chunk of the document while begins
SECTIONS = [
    {"shard_id": "s0", "uri": "lambda", "start": 0},
    {"shard_id": "s0", "uri": "while", "start": 0},
    {"shard_id": "s1", "uri": "while", "start": SECOND},
    {"shard_id": "s1", "uri": "copy", "start": 0},
    {"shard_id": "s2", "uri": "global", "start": 0},
]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """One store for all tests, so that the texts are embedded once."""
    return with_store(tmp_path_factory.mktemp("store"))


def with_store(folder: Path, factory: str = "Flat", sparse: str | None = None) -> Pipeline:
    return Pipeline(
        CorpusSpec.model_validate(
            {
                "corpus": "topics",
                "source": {"uris": ["not-read"]},
                "store": {"uri": str(folder)},
                "memory": {"model": "package:smollm2-135m-instruct"},
                "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
                "index": {"factory": factory},
                "retrieval": {"sparse": sparse},
            }
        )
    )


def make_index(pipeline: Pipeline) -> dict[str, Any]:
    batch, units = embed_batch(pipeline, None, PARTS)
    embed(pipeline, batch)
    built = build_index(pipeline, index_plan(pipeline, units, SECTIONS))
    plan: dict[str, Any] = read_json(pipeline, built["plan"])
    assert built["counts"]["vectors"] == 6  # the copy has that of lambda
    return plan


def open_plan(pipeline: Pipeline, plan: dict[str, Any], **arguments: Any) -> Searcher:
    blobs = pipeline.store.blobs

    def opened(segment: dict[str, Any]) -> Segment:
        files = SegmentFiles(
            blobs.open_file(BlobRef(**segment["index"]), "index.faiss"),
            rows=lambda: RowTable.of_stored(
                open_table(blobs.open_file(BlobRef(**segment["rows"])), "rows", schemas.SEGMENT_ROWS)
            ),
            tables=tuple(segment["tables"]),
            texts=segment["vectors"],
            sparse=blobs.open_file(BlobRef(**segment["sparse"]), "sparse") if "sparse" in segment else None,
        )
        return open_segment(files)

    sections = blobs.get_table(BlobRef(**plan["sections"]))
    return open_searcher(
        **{
            "segments": IndexSegments([partial(opened, segment) for segment in plan["index"]["segments"]]),
            "get_chunks": lambda part, columns: blobs.get_table(BlobRef(**plan["chunks"][part]), columns),
            "get_shard": ShardPlaces(lambda: sections, "version 1"),
            "embedding": pipeline.spec.embedding,
            "model_digest": DIGEST,
            "name": "version 1",
            **arguments,
        },
    )


def the_segment(plan: dict[str, Any]) -> dict[str, Any]:
    (segment,) = plan["index"]["segments"]
    return segment


def without_words(plan: dict[str, Any]) -> dict[str, Any]:
    segments = [{name: value for name, value in each.items() if name != "sparse"} for each in plan["index"]["segments"]]
    return {**plan, "index": {**plan["index"], "segments": segments}}


def test_rows_say_which_chunk_is_where(pipeline: Pipeline) -> None:
    plan = make_index(pipeline)
    segment = the_segment(plan)
    rows = pipeline.store.blobs.get_table(BlobRef(**segment["rows"]))
    assert rows.schema == schemas.SEGMENT_ROWS
    chunks = pa.concat_tables([chunk_table(part) for part in PARTS]).take(
        [0, 4, 1, 2, 3, 5, 6]
    )  # the copy of the first
    for name, column in (("digest", "digest"), ("document", "document_id")):
        assert [key.hex() for key in rows.column(name).to_pylist()] == [
            value[:16] for value in chunks.column(column).to_pylist()
        ]
    assert rows.column("row").to_pylist() == [0, 0, 1, 2, 3, 4, 5]
    assert segment["tables"] == [1, 2]  # part 0 has no chunks
    assert rows.column("table").to_pylist() == [0, 1, 0, 0, 0, 1, 1]
    assert rows.column("table_row").to_pylist() == [0, 0, 1, 2, 3, 1, 2]
    shards = [hit.shard_id for (hit, *_) in open_plan(pipeline, plan).search([*LAMBDA, *WHILE, *GLOBAL], 1)]
    assert shards == ["s0", "s0", "s1", "s1", "s2", "s2"]


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF2,Flat"])
def test_finds_the_exact_chunk(factory: str, pipeline: Pipeline) -> None:
    pipeline = with_store(Path(pipeline.spec.store.uri), factory)
    searcher = open_plan(pipeline, make_index(pipeline))
    results = searcher.search([*WHILE, GLOBAL[1]], 3)
    for (first, *others), text in zip(results, [*WHILE, GLOBAL[1]], strict=True):
        assert first.text == text
        assert first.score == pytest.approx(1, abs=1e-5)
        assert [passage.score for passage in others] == sorted((passage.score for passage in others), reverse=True)
        assert all(passage.score < 0.99 for passage in others)
    second = results[1][0]
    assert (second.uri, second.document_id, second.shard_id) == ("while", document_id("while"), "s1")
    assert (second.start, second.end) == (SECOND, SECOND + len(WHILE[1]))


def test_a_text_is_found_once_with_every_document_that_has_it_and_k_may_pass_the_index(pipeline: Pipeline) -> None:
    (found,) = open_plan(pipeline, make_index(pipeline)).search(LAMBDA, 50)
    assert (found[0].uri, found[0].also_in) == ("lambda", ("copy",))
    assert len({passage.text for passage in found}) == len(found) == 6
    assert all(passage.also_in == () for passage in found[1:])


def test_texts_are_read_only_of_parts_that_were_found(pipeline: Pipeline) -> None:
    plan = make_index(pipeline)
    asked: list[int] = []

    def get_chunks(part: int, columns: list[str]) -> pa.Table:
        asked.append(part)
        return chunk_table(PARTS[part - 1]).select(columns)

    searcher = open_plan(pipeline, plan, get_chunks=get_chunks)
    searcher.search(GLOBAL, 1)
    searcher.search(GLOBAL, 1)
    assert asked == [2]


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF2,Flat"])
def test_words_find_what_vectors_do_not(factory: str, pipeline: Pipeline) -> None:
    pipeline = with_store(Path(pipeline.spec.store.uri), factory, "bm25")
    plan = make_index(pipeline)
    both, dense = open_plan(pipeline, plan), open_plan(pipeline, without_words(plan))
    others = {term for text in [*WHILE, *GLOBAL] for term in terms_of(text)}
    question = next(term for term in terms_of(LAMBDA[0]) if term not in others)
    (found,), (by_vectors,) = both.search([f"xyzzy {question}"], 1), dense.search([f"xyzzy {question}"], 6)
    assert [(passage.text, passage.also_in) for passage in found] == [(LAMBDA[0], ("copy",))]
    scores = {passage.text: passage.score for passage in by_vectors}
    assert found[0].score == pytest.approx(scores[LAMBDA[0]], abs=1e-5)  # the cosine, also of a hit by words


def test_an_index_by_words_of_other_texts_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    build_sparse_index(["one text", "another"], tmp_path / "sparse")
    plan = make_index(pipeline)
    the_segment(plan)["sparse"] = pipeline.store.blobs.put_file(tmp_path / "sparse").model_dump()
    with pytest.raises(CorruptBlobError, match="the index has 2 rows and that of the vectors 6"):
        open_plan(pipeline, plan)


def test_same_inputs_give_the_same_blobs_and_are_done_once(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_index(pipeline)
    other = make_index(with_store(tmp_path))
    assert plan["index"] == other["index"]
    recorded: list[Outcome] = []
    monkeypatch.setattr(type(pipeline.store.units), "record", lambda self, outcome: recorded.append(outcome) or outcome)
    assert make_index(pipeline) == plan
    assert recorded == []


def test_units_that_were_not_run_are_named(tmp_path: Path) -> None:
    pipeline = with_store(tmp_path)
    _, units = embed_batch(pipeline, None, PARTS)
    with pytest.raises(MemoragError, match=f"embed unit {units[0]['fingerprint']}.*run embed first"):
        build_index(pipeline, index_plan(pipeline, units, SECTIONS))


@pytest.mark.parametrize("cut", [100, -100])
def test_an_index_that_cannot_be_opened_is_not_recorded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    pipeline = with_store(Path(pipeline.spec.store.uri), "HNSW8")  # an index that no other test makes
    batch, units = embed_batch(pipeline, None, PARTS)
    embed(pipeline, batch)
    write = faiss_index.write_index

    def write_a_part(index: Any, path: Path) -> None:
        write(index, path)
        path.write_bytes(path.read_bytes()[:cut])

    monkeypatch.setattr(faiss_index, "write_index", write_a_part)
    recorded: list[Outcome] = []
    monkeypatch.setattr(type(pipeline.store.units), "record", lambda self, outcome: recorded.append(outcome) or outcome)
    with pytest.raises(MemoragError, match=r"index\.factory HNSW8 cannot be opened .*set index\.factory to Flat"):
        build_index(pipeline, index_plan(pipeline, units, SECTIONS))
    assert recorded == []


def test_memories_of_the_plan_get_their_blobs(pipeline: Pipeline) -> None:
    batch, units = embed_batch(pipeline, None, PARTS)
    embed(pipeline, batch)
    plan = read_json(pipeline, index_plan(pipeline, units, SECTIONS))
    plan["memories"] = [{"shard_id": "s0", "kind": "base", "fingerprint": "f" * 64, "tokens": 9, "stale_tokens": 0}]
    with pytest.raises(MemoragError, match=f"memorize unit {'f' * 64}.*run memorize first"):
        build_index(pipeline, write_json(pipeline, plan))
    memory = pipeline.store.blobs.put_bytes(b"a memory")
    pipeline.store.units.record(
        Outcome(stage="memorize", fingerprint="f" * 64, blobs={"memory": memory}, counts={"tokens": 9})
    )
    built = read_json(pipeline, build_index(pipeline, write_json(pipeline, plan))["plan"])
    assert built["memories"] == [{**plan["memories"][0], "memory": memory.model_dump()}]


def test_altered_index_is_named(pipeline: Pipeline) -> None:
    pipeline = with_store(Path(pipeline.spec.store.uri), "SQ8")  # an index that no other test opens
    plan = make_index(pipeline)
    path = Path(pipeline.store.blobs.uri(BlobRef(**the_segment(plan)["index"])).removeprefix("file://"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptBlobError, match=r"index\.faiss: .* altered"):
        open_plan(Pipeline(pipeline.spec), plan)


def test_index_and_rows_must_belong_together(pipeline: Pipeline) -> None:
    plan = make_index(pipeline)
    segment, blobs = the_segment(plan), pipeline.store.blobs
    segment["rows"] = blobs.put_table(blobs.get_table(BlobRef(**segment["rows"])).slice(0, 5)).model_dump()
    with pytest.raises(CorruptBlobError, match="6 rows, and its row table those from 0 to 3"):
        open_plan(pipeline, plan).search_vectors(np.ones((1, 384), np.float32), 1)
    segment["vectors"] = 5
    with pytest.raises(CorruptBlobError, match="6 rows, and 5 in the manifest"):
        open_plan(pipeline, plan)


def test_model_of_other_dimensions_is_refused(pipeline: Pipeline) -> None:
    searcher = open_plan(pipeline, make_index(pipeline))
    with pytest.raises(MemoragError, match=r"all-minilm-l6-v2 gives vectors of 8 dimensions, .* the index have 384"):
        searcher.search_vectors(np.zeros((1, 8), np.float32), 1)


def test_model_with_other_weights_is_refused(pipeline: Pipeline) -> None:
    searcher = open_plan(pipeline, make_index(pipeline), model_digest="0" * 64)
    with pytest.raises(MemoragError, match="made with sha256:" + "0" * 64):
        searcher.search(["a question"], 1)


def test_unknown_model_is_refused_only_when_it_is_needed(pipeline: Pipeline) -> None:
    searcher = open_plan(pipeline, make_index(pipeline), embedding=EmbeddingSpec(model="./no-such-model"))
    assert len(searcher.search_vectors(np.ones((1, 384), np.float32), 2)[0]) == 2
    with pytest.raises(MemoragError, match="no-such-model"):
        searcher.search(["a question"], 1)
