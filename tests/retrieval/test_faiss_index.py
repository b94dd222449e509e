"""Each kind of index: built the same way each time, found again after saving, refused where it cannot be built."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.retrieval.faiss_index import build_index, open_index, write_index
from memorag_pipeline.specs.retrieval import IndexSpec

DIMENSIONS = 32
FACTORIES = ["Flat", "SQ8", "HNSW32", "IVF16,Flat", "IVF4,PQ8x4", "IVF16_HNSW8,Flat", "PCA16,IVF16,Flat", "OPQ8,PQ8x4"]


def random_vectors(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    normalized: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


VECTORS = random_vectors(640)


def parts() -> Iterator[npt.NDArray[np.float32]]:
    yield from np.split(VECTORS, [10, 300, 301])


def built(factory: str, path: Path) -> bytes:
    write_index(build_index(IndexSpec(factory=factory), DIMENSIONS, len(VECTORS), parts), path)
    return path.read_bytes()


@pytest.mark.parametrize("factory", FACTORIES)
def test_equal_vectors_give_an_equal_file_with_any_number_of_threads(factory: str, tmp_path: Path) -> None:
    threads = faiss.omp_get_max_threads()
    try:
        files = []
        for number in (1, 2, 2):
            faiss.omp_set_num_threads(number)
            files.append(built(factory, tmp_path / "index"))
            assert faiss.omp_get_max_threads() == number
    finally:
        faiss.omp_set_num_threads(threads)
    assert len(set(files)) == 1


@pytest.mark.parametrize("factory", FACTORIES)
def test_saved_index_finds_what_the_built_one_found(factory: str, tmp_path: Path) -> None:
    index = build_index(IndexSpec(factory=factory), DIMENSIONS, len(VECTORS), parts)
    write_index(index, tmp_path / "index")
    opened = open_index(tmp_path / "index")
    queries = random_vectors(20, seed=1)
    for ours, theirs in zip(opened.search(queries, 5), index.search(queries, 5), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("factory", "least"), [("Flat", 1), ("HNSW32", 0.97), ("IVF16,Flat", 0.75)])
def test_nearest_vectors_are_found(factory: str, least: float, tmp_path: Path) -> None:
    built(factory, tmp_path / "index")
    queries = random_vectors(50, seed=1)
    exact = np.argsort(-(queries @ VECTORS.T), axis=1, kind="stable")[:, :10]
    _, found = open_index(tmp_path / "index").search(queries, 10)
    recall = np.mean([len(set(ours) & set(right)) / 10 for ours, right in zip(found, exact, strict=True)])
    assert recall >= least


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF16,Flat"])
def test_opened_index_is_mapped_not_read(factory: str, tmp_path: Path) -> None:
    built(factory, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert str(tmp_path / "index") in Path("/proc/self/maps").read_text()
    assert index.ntotal == len(VECTORS)


@pytest.mark.parametrize(
    ("factory", "count", "reason"),
    [
        ("IVF32,Flat", 31, "IVF32,Flat .* 31 vectors: it has 32 lists; Flat or HNSW32 would fit"),
        ("IVF256,Flat", 200, "IVF256,Flat .* 200 vectors: .*; Flat, HNSW32 or IVF5,Flat would fit"),
        ("PQ8", 100, r"PQ8 .* 100 vectors: Number of training points \(100\)"),
        ("PQ7", 640, "PQ7 .* 32 dimensions: The dimension of the vector"),
        ("SQfoo", 640, "SQfoo .*could not parse"),
    ],
)
def test_what_cannot_be_built_says_why_and_what_fits(factory: str, count: int, reason: str) -> None:
    with pytest.raises(MemoragError, match=reason):
        build_index(IndexSpec(factory=factory), DIMENSIONS, count, lambda: iter([VECTORS[:count]]))


def test_few_vectors_are_warned_of_once(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING):
        build_index(IndexSpec(factory="IVF4,PQ4x4"), DIMENSIONS, 100, lambda: iter([VECTORS[:100]]))
    (message,) = caplog.messages
    assert "IVF4,PQ4x4: 100 vectors are few" in message
    assert capfd.readouterr().err == ""


def test_a_file_that_is_no_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"no index" * 100)
    with pytest.raises(CorruptBlobError, match=r"index: not a Faiss index .* not recognized"):
        open_index(tmp_path / "index")
