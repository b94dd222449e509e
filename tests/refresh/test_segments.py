"""The segments of an index: exact ones follow from the corpus, delta ones hold what changed, a search sees one index.

Vectors are made from the digests of texts, so that no model is needed.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import s3fs

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.index import build_index
from memorag_pipeline.refresh.index_kind import factory_for
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.plans import IndexPlan
from memorag_pipeline.refresh.publish import manifest_blobs
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.retrieval import version_segments
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import Manifest, ModelRecord, Outcome, fingerprint
from memorag_pipeline.version import open_version
from tests.fixtures.s3 import S3Server
from tests.retrieval.chunk_tables import chunk_table, document_id
from tests.storage.work_json import write_json

DIMENSIONS = 16
MODEL = ModelRecord(role="embedding", name="none", digest="0" * 64)
Corpus = dict[str, list[str]]  # URI to the texts of its chunks
PART = 4  # documents


def vector(digest: str) -> np.ndarray:
    values = np.random.default_rng(int(digest[:8], 16)).standard_normal(DIMENSIONS).astype(np.float32)
    return values / np.linalg.norm(values)


def pipeline_of(folder: Path, **sections: Any) -> Pipeline:
    values = {
        "corpus": "numbers",
        "source": {"uris": ["not-read"]},
        "store": {"uri": str(folder)},
        "memory": {"model": "package:smollm2-135m-instruct"},
        "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
        "index": {"segment_chunks": 40},
    }
    return Pipeline(CorpusSpec.model_validate({**values, **sections}))


def corpus(documents: int = 60) -> Corpus:
    """Documents of three chunks; the first chunk of every tenth is the same."""
    return {
        f"doc-{number:03d}": [
            "A text that many documents begin with." if number % 10 == 0 else f"Opening of document {number}.",
            f"The middle of document {number} speaks of topic {number % 7}.",
            f"The end of {number}.",
        ]
        for number in range(documents)
    }


def parts_of(documents: Mapping[str, Sequence[str]]) -> list[dict[str, Sequence[str]]]:
    """Parts whose borders do not depend on what is in the documents, or in other parts."""
    found: dict[str, dict[str, Sequence[str]]] = {}
    for uri in sorted(documents):
        found.setdefault(uri[: len("doc-00")], {})[uri] = documents[uri]
    return list(found.values())


def refresh(pipeline: Pipeline, documents: Corpus, lost: Sequence[str] = ()) -> tuple[int, dict[str, int]]:
    """Publish a version whose chunks are those of the documents; its number, and what the stage index counted."""
    blobs, units = pipeline.store.blobs, pipeline.store.units
    chunks, embeddings, sections = [], [], []
    for number, part in enumerate(parts_of(documents)):
        table = chunk_table(part)
        ref = blobs.put_table(table)
        digests = sorted(set(table.column("digest").to_pylist()))
        columns = {"digest": digests, "vector": [vector(digest) for digest in digests]}
        vectors = pa.table(columns, schema=schemas.embeddings(DIMENSIONS))
        unit = fingerprint("embed", 1, digests=digests)
        outcome = Outcome(stage="embed", fingerprint=unit, blobs={"embeddings": blobs.put_table(vectors)}, counts={})
        units.record(outcome.model_copy(update={"counts": {"chunks": len(digests)}}))
        chunks.append(ref.model_dump())
        embeddings.append({"fingerprint": unit, "configuration": "", "chunks": ref.model_dump()})
        sections += [
            {"document_id": document_id(uri), "uri": uri, "start": 0, "end": 10**6, "tokens": 1, "content": uri}
            | {"key": uri, "text": uri, "part": number, "shard_id": f"shard of {uri}"}
            for uri in part
        ]
    listed = [{"document_id": document_id(uri), "uri": uri, "size": 1} for uri in sorted(documents)]
    parent = pipeline.store.versions.newest()
    plan = {
        **{name: [] for name in ("parts", "memories", "documents", "quarantine")},
        "lost": list(lost),
        "chunks": chunks,
        "sections": blobs.put_table(pa.Table.from_pylist(sections, schema=schemas.SECTIONS)).model_dump(),
        "parent": parent,
        "embeddings": embeddings,
        "inventory": blobs.put_table(pa.Table.from_pylist(listed, schema=schemas.INVENTORY)).model_dump(),
        "shards": blobs.put_table(schemas.SHARDS.empty_table()).model_dump(),
        "models": [MODEL.model_dump()],
        "spec_fingerprint": pipeline.settled.fingerprint(),
        "counts": {},
    }
    built = build_index(pipeline, write_json(pipeline, plan))
    indexed = pipeline.read_work(built["plan"], IndexPlan)
    manifest = Manifest(
        corpus="numbers",
        language="en",
        parent=None,
        spec_fingerprint=indexed.spec_fingerprint,
        spec=pipeline.settled.content(),
        models=(MODEL,),
        blobs=tuple(manifest_blobs(indexed)),
        index=indexed.index,
        counts={},
    )
    return pipeline.store.versions.publish(manifest, "run", base=parent).version, built["counts"]


def opened(pipeline: Pipeline, version: int | None = None) -> OpenedVersion:
    number = pipeline.store.versions.newest() if version is None else version
    assert number is not None
    return OpenedVersion(pipeline.store, number, trust_models=True)


def search(pipeline: Pipeline, k: int = 12, version: int | None = None) -> list[list[Passage]]:
    return opened(pipeline, version).searcher.search_vectors(QUERIES, k)


QUERIES = np.stack([vector(f"{number:08x}") for number in range(9)])


def brute_force(documents: Corpus, k: int) -> list[list[tuple[float, str, tuple[str, ...]]]]:
    """Score, text and URIs of the nearest distinct texts."""
    table = chunk_table({uri: documents[uri] for uri in sorted(documents)})
    uris: dict[str, list[str]] = {}
    for uri, text in zip(*(table.column(name).to_pylist() for name in ("uri", "text")), strict=True):
        uris.setdefault(text, []).append(uri)
    digests = dict(zip(*(table.column(name).to_pylist() for name in ("text", "digest")), strict=True))
    matrix = np.stack([vector(digests[text]) for text in uris])
    found = []
    for query in QUERIES:
        scores = matrix @ query
        best = np.argsort(-scores, kind="stable")[:k]
        texts = list(uris)
        found.append([(float(scores[row]), texts[row], tuple(dict.fromkeys(uris[texts[row]]))) for row in best])
    return found


def assert_found(pipeline: Pipeline, documents: Corpus, k: int = 12) -> None:
    """Search finds what a look at all vectors finds, with the documents that have it and their shards."""
    for passages, expected in zip(search(pipeline, k), brute_force(documents, k), strict=True):
        assert [passage.score for passage in passages] == pytest.approx([score for score, _, _ in expected], abs=1e-6)
        for passage, (_, text, uris) in zip(passages, expected, strict=True):
            assert passage.text == text
            assert {passage.uri, *passage.also_in} == set(uris)
            assert passage.shard_id == f"shard of {passage.uri}"


def edited(documents: Corpus, *numbers: int) -> Corpus:
    changed = copy.deepcopy(documents)
    for number in numbers:
        changed[f"doc-{number:03d}"][1] += " It was edited."
    return changed


def kinds(pipeline: Pipeline) -> list[str]:
    index = opened(pipeline).manifest.index
    assert index is not None
    return [segment.kind for segment in index.segments]


@pytest.mark.parametrize("sparse", [None, "bm25"])
def test_many_segments_are_searched_as_one_index(tmp_path: Path, sparse: str | None) -> None:
    several = pipeline_of(tmp_path / "several", retrieval={"sparse": sparse})
    single = pipeline_of(tmp_path / "single", retrieval={"sparse": sparse}, index={"segment_chunks": 4096})
    refresh(several, corpus())
    refresh(single, corpus())
    assert len(kinds(several)) > 3
    assert kinds(single) == ["base"]
    assert_found(several, corpus())
    assert [[passage.text for passage in found] for found in search(several)] == [
        [passage.text for passage in found] for found in search(single)
    ]


def test_an_exact_refresh_builds_the_segments_that_changed_and_gives_the_manifest_of_a_full_build(
    tmp_path: Path,
) -> None:
    pipeline, fresh = pipeline_of(tmp_path / "store"), pipeline_of(tmp_path / "fresh")
    _, first = refresh(pipeline, corpus())
    assert first["segments_built"] == first["segments"] > 3
    changed = edited(corpus(), 17)
    del changed["doc-002"]
    changed["doc-041b"] = ["A new document."]
    number, counts = refresh(pipeline, changed)
    assert 0 < counts["segments_built"] <= 4 < counts["segments"] + 1
    refresh(fresh, changed)
    assert opened(pipeline, number).manifest.content_digest() == opened(fresh).manifest.content_digest()
    assert_found(pipeline, changed)


def test_a_delta_refresh_writes_what_changed_and_masks_what_is_gone(tmp_path: Path) -> None:
    pipeline = pipeline_of(tmp_path, refresh={"mode": "delta", "max_stale": 0.5})
    refresh(pipeline, corpus())
    before = kinds(pipeline)
    changed = edited(corpus(), 5, 33)
    del changed["doc-020"]
    changed["doc-044b"] = ["A new document.", "The end of 3."]
    _, counts = refresh(pipeline, changed)
    assert counts["segments_built"] == 1
    assert kinds(pipeline) == [*before, "delta"]
    index = opened(pipeline).manifest.index
    assert index is not None
    assert sum(segment.masked for segment in index.segments) == 9  # chunks of three documents
    assert index.segments[-1].chunks == 8
    assert_found(pipeline, changed)
    words = pipeline.store.blobs.get_table(opened(pipeline).manifest.of_role("indexed_chunks")[-1].ref)
    assert sorted(set(words.column("uri").to_pylist())) == ["doc-005", "doc-033", "doc-044b"]


@pytest.mark.parametrize("max_stale", [0.3, 0.9])
def test_a_history_of_delta_refreshes_always_finds_the_corpus(tmp_path: Path, max_stale: float) -> None:
    spec = {"mode": "delta", "max_stale": max_stale}
    pipeline = pipeline_of(tmp_path, refresh=spec, retrieval={"sparse": "bm25"})
    documents, random = corpus(), np.random.default_rng(7)
    refresh(pipeline, documents)
    most = 0
    for night in range(14):
        documents = edited(documents, *random.choice(sorted(int(uri[4:]) for uri in documents), 2).tolist())
        documents.pop(f"doc-{random.integers(60):03d}", None)
        documents[f"doc-{random.integers(60):03d}"] = [f"Written on night {night}.", f"The end of {night}."]
        refresh(pipeline, documents)
        most = max(most, kinds(pipeline).count("delta"))
        index = opened(pipeline).manifest.index
        assert index is not None
        assert all(segment.masked <= max_stale * segment.chunks for segment in index.segments)
        assert sum(segment.live for segment in index.segments) == sum(map(len, documents.values()))
        assert_found(pipeline, documents)
    assert 3 <= most < 12  # of 14 nights: those that are alike become one
    again = documents | {"doc-001": ["Once more."]}
    exact = pipeline_of(tmp_path, retrieval={"sparse": "bm25"})
    refresh(exact, again)
    assert set(kinds(exact)) == {"base"}
    assert_found(exact, again)


def test_delta_segments_that_hold_too_much_become_base_segments(tmp_path: Path) -> None:
    pipeline, exact = pipeline_of(tmp_path / "delta", refresh={"mode": "delta"}), pipeline_of(tmp_path / "exact")
    refresh(pipeline, corpus(40))
    refresh(pipeline, corpus(60))
    refresh(exact, corpus(60))
    assert opened(pipeline).manifest.index == opened(exact).manifest.index


def test_what_is_purged_stays_in_no_segment(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"mode": "delta", "max_stale": 0.9}
    pipeline = pipeline_of(tmp_path, refresh=spec)
    copied = {**corpus(), "doc-055": ["Another beginning.", "The end of 12."]}
    refresh(pipeline, copied)
    documents = {uri: texts for uri, texts in copied.items() if uri not in ("doc-012", "doc-055")}
    refresh(pipeline, documents)
    stays = "The end of 12."

    def indexed() -> str:
        tables = opened(pipeline).manifest.chunk_tables
        return str([pipeline.store.blobs.get_table(blob.ref).column("text").to_pylist() for blob in tables])

    assert stays in indexed()  # masked
    pipeline = pipeline_of(tmp_path, refresh={**spec, "purge": ["doc-012"]})
    refresh(pipeline, edited(documents, 50))
    assert stays not in indexed()
    assert_found(pipeline, edited(documents, 50))
    purge = Purge(pipeline.spec.refresh.purge)
    versions = [Parent(pipeline, number) for number in (1, 2)]
    assert purge.holders(versions, Parent(pipeline, 3)) == [1, 2]  # in the second it is masked


def test_a_trained_kind_keeps_its_template_until_the_corpus_has_grown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of(tmp_path, index={"factory": "IVF4,Flat", "segment_chunks": 40})
    refresh(pipeline, corpus(30))
    first = opened(pipeline).manifest.index
    refresh(pipeline, corpus(40))
    second = opened(pipeline).manifest.index
    assert first is not None and second is not None and first.template is not None
    assert (second.template, second.trained_on) == (first.template, first.trained_on)
    assert_found_most(pipeline, corpus(40))
    with caplog.at_level("INFO"):
        refresh(pipeline, corpus(90))
    third = opened(pipeline).manifest.index
    assert third is not None and third.template != first.template and third.trained_on > 2 * first.trained_on
    assert "IVF4,Flat is trained again" in caplog.text
    assert_found_most(pipeline, corpus(90))


def assert_found_most(pipeline: Pipeline, documents: Corpus) -> None:
    """All lists are probed here, so an inverted index finds all."""
    found = [[passage.text for passage in passages] for passages in search(pipeline, 5)]
    assert found == [[text for _, text, _ in expected] for expected in brute_force(documents, 5)]


def test_auto_chooses_by_the_number_of_texts_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(tmp_path)
    refresh(pipeline, corpus())
    index = opened(pipeline).manifest.index
    assert index is not None and index.factory == "Flat"
    monkeypatch.setattr("memorag_pipeline.refresh.index_kind._FLAT_UP_TO", 100)
    refresh(pipeline, edited(corpus(), 1))
    index = opened(pipeline).manifest.index
    assert index is not None and (index.factory, index.template) == ("SQ8", None)
    monkeypatch.setattr("memorag_pipeline.refresh.index_kind._SQ8_UP_TO", 100)
    refresh(pipeline, edited(corpus(), 2))
    index = opened(pipeline).manifest.index
    assert index is not None and index.factory == "IVF32,SQ8" and index.template is not None


def test_a_lost_segment_is_built_again(tmp_path: Path) -> None:
    pipeline = pipeline_of(tmp_path, refresh={"mode": "delta"})
    refresh(pipeline, corpus())
    index = opened(pipeline).manifest.index
    assert index is not None
    lost = index.segments[1].index
    Path(pipeline.store.blobs.uri(lost).removeprefix("file://")).unlink()
    with pytest.raises(CorruptBlobError, match=r"index/00001.faiss of version 1: .* is missing"):
        search(pipeline)
    number, counts = refresh(pipeline, corpus(), [lost.digest])
    assert (number, counts["segments_built"]) == (1, 1)  # the same version
    assert_found(pipeline, corpus())


@pytest.fixture
def on_s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], OpenedVersion]:
    """Copies a store to a server, and opens its newest version there, with an empty cache."""

    def copied(folder: Path, prefetch: bool = False) -> OpenedVersion:
        bucket, options = s3_server.new_bucket(), s3_server.options()
        s3fs.S3FileSystem(**options).put(str(folder / "numbers"), f"{bucket}/kb/numbers", recursive=True)
        monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / f"cache-{prefetch}"))
        monkeypatch.setattr(version_segments, "_LEAST_REMOTE", 0)
        return open_version(f"s3://{bucket}/kb/numbers", storage_options=options, trust_models=True, prefetch=prefetch)

    return copied


def fetched(version: OpenedVersion, cache: Path) -> Counter[str]:
    roles = {blob.digest: blob.role for blob in version.manifest.blobs}
    return Counter(roles[path.name] for path in (cache / "blobs").glob("??/*") if path.name in roles)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF4,PQ4x4"])
def test_a_remote_index_of_lists_is_searched_without_its_files(
    factory: str, tmp_path: Path, on_s3: Callable[..., OpenedVersion]
) -> None:
    spec: dict[str, Any] = {"refresh": {"mode": "delta", "max_stale": 0.5}}
    pipeline = pipeline_of(tmp_path / "store", index={"factory": factory, "segment_chunks": 40}, **spec)
    refresh(pipeline, corpus())
    refresh(pipeline, edited(corpus(), 5, 33, 34))
    assert kinds(pipeline).count("delta") == 1
    expected = search(pipeline)
    version = on_s3(tmp_path / "store")
    assert version.searcher.search_vectors(QUERIES, 12) == expected
    assert [version.searcher.search_vectors(QUERIES[[n]], 12)[0] for n in range(9)] == expected
    roles = fetched(version, tmp_path / "cache-False")
    assert roles["index"] == 1  # that of the delta segment
    assert roles["index_template"] == 1
    whole = on_s3(tmp_path / "store", prefetch=True)
    assert whole.searcher.search_vectors(QUERIES, 12) == expected
    assert fetched(whole, tmp_path / "cache-True")["index"] == len(kinds(pipeline))


def test_a_list_that_was_altered_is_named(tmp_path: Path, on_s3: Callable[..., OpenedVersion]) -> None:
    pipeline = pipeline_of(tmp_path / "store", index={"factory": "IVF4,Flat", "segment_chunks": 40})
    refresh(pipeline, corpus())
    index = opened(pipeline).manifest.index
    assert index is not None
    path = Path(pipeline.store.blobs.uri(index.segments[1].index).removeprefix("file://"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    searcher = on_s3(tmp_path / "store").searcher
    with pytest.raises(CorruptBlobError, match=r"index/00001.faiss: inverted list \d was altered"):
        searcher.search_vectors(QUERIES, 3)


@pytest.mark.parametrize(
    ("texts", "dimensions", "factory"),
    [
        (41_000, 384, "Flat"),
        (42_000, 384, "SQ8"),
        (16_000, 1024, "SQ8"),
        (260_000, 384, "SQ8"),
        (261_000, 384, "IVF1024,SQ8"),
        (1_000_000, 384, "IVF2048,SQ8"),
        (10_000_000, 384, "IVF8192,SQ8"),
    ],
)
def test_auto_follows_the_bytes_of_all_vectors(texts: int, dimensions: int, factory: str) -> None:
    assert factory_for(texts, dimensions) == factory


@pytest.mark.parametrize("factory", ["SQ8", "HNSW16,SQ8", "HNSW16"])
def test_kinds_of_one_segment_alone_make_no_template(factory: str, tmp_path: Path) -> None:
    pipeline = pipeline_of(tmp_path, index={"factory": factory, "segment_chunks": 40})
    refresh(pipeline, corpus())
    index = opened(pipeline).manifest.index
    assert index is not None and index.template is None and index.trained_on == 0
    (found, *_) = search(pipeline)
    assert found[0].score == pytest.approx(brute_force(corpus(), 1)[0][0][0], abs=0.02)
