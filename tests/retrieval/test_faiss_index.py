"""Each kind of index: built the same way each time, found again after saving, refused where it cannot be built."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.retrieval import faiss_index
from memorag_pipeline.retrieval.faiss_index import build_index, cosine, open_index, train_index, write_index
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


CODES = ["Flat", "PQ2", "PQ2x4", "SQ4", "SQ6", "SQ8", "SQfp16", "SQbf16"]
LISTS_AND_GRAPHS = ["", "HNSW8", "IVF16", "IVF16_HNSW8"]


def kinds(transform: str) -> list[str]:
    """The factory strings that a spec may name, one of each form, after a transform of the vectors."""
    pairs = [*itertools.product(LISTS_AND_GRAPHS, CODES), ("HNSW8", "")]
    if transform.startswith("OPQ"):  # takes long to train
        pairs = [*itertools.product(LISTS_AND_GRAPHS, ["PQ2", "SQ8"])]
    factories = [",".join(filter(None, (transform, *pair))) for pair in pairs]
    return [factory for factory in factories if "HNSW8,PQ" not in factory or "IVF" in factory]


@pytest.mark.parametrize("transform", ["", "PCA4", "PCAR4", "PCAW4", "OPQ2", "OPQ2_4"])
def test_each_kind_that_a_spec_may_name_is_opened_and_searched(transform: str, tmp_path: Path) -> None:
    vectors = VECTORS[:300, :8].copy()
    refused = []
    for factory in kinds(transform):
        index = build_index(IndexSpec(factory=factory), 8, len(vectors), lambda: iter([vectors]))
        write_index(index, tmp_path / "index")
        try:
            opened = open_index(tmp_path / "index")
        except CorruptBlobError as error:
            refused.append(f"{factory}: {error}")
            continue
        assert opened.ntotal == len(vectors)
        for ours, theirs in zip(opened.search(vectors[:5], 3), index.search(vectors[:5], 3), strict=True):
            assert np.array_equal(ours, theirs)
        scores, found = opened.search(vectors[7:8], 1)  # as others are scored that words find, not vectors
        assert cosine(opened, int(found[0, 0]), vectors[7]) == pytest.approx(float(scores[0, 0]), abs=0.02)
    assert refused == []


@pytest.mark.parametrize(
    "factory", ["IVF16,", "OPQ8,", "PCA16,IVF16,", "SQfoo", "SQ4bit", "SQ8_direct", "PQ", "HNSW32,"]
)
def test_what_faiss_cannot_make_of_vectors_is_refused_with_the_spec(factory: str) -> None:
    with pytest.raises(ValidationError, match="not a Faiss factory string"):
        IndexSpec(factory=factory)


@pytest.mark.parametrize("factory", ["HNSW8,PQ2x4", "PCA4,HNSW8,PQ2x4"])
def test_pq_under_hnsw_is_refused_because_its_scores_are_distances(factory: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"distances .*, not inner products; use e\.g\. HNSW32,SQ8"):
        IndexSpec(factory=factory)
    index = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS[:, :8].copy())
    index.add(VECTORS[:, :8].copy())
    write_index(index, tmp_path / "index")  # as an earlier release did
    with pytest.raises(MemoragError, match=r"index: .* its order would be wrong; set index\.factory .* and refresh"):
        open_index(tmp_path / "index")


def written(factory: str, count: int, path: Path) -> Path:
    vectors = VECTORS[:count]
    write_index(build_index(IndexSpec(factory=factory), DIMENSIONS, count, lambda: iter([vectors])), path)
    return path


def test_the_limit_for_one_file_does_not_hold_for_another_that_is_opened_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = written("Flat", 2, tmp_path / "small"), written("IVF16,Flat", 640, tmp_path / "large")
    read, set_limit = faiss.read_index, faiss.set_deserialization_vector_byte_limit
    changed = threading.Event()

    def set_and_tell(size: int) -> None:
        set_limit(size)
        if size == small.stat().st_size:
            changed.set()

    with ThreadPoolExecutor(1) as pool:
        opened: list[Future[Any]] = []

        def read_while_the_other_begins(name: str, flags: int) -> Any:
            if name == str(large):
                opened.append(pool.submit(open_index, small))
                changed.wait(0.2)
            return read(name, flags)

        monkeypatch.setattr(faiss, "read_index", read_while_the_other_begins)
        monkeypatch.setattr(faiss, "set_deserialization_vector_byte_limit", set_and_tell)
        assert open_index(large).ntotal == 640
        assert opened[0].result().ntotal == 2


def test_indexes_are_opened_by_many_threads(tmp_path: Path) -> None:
    paths = {written("IVF2,Flat", count, tmp_path / str(count)): count for count in (2, 20, 200, 640)}
    together = threading.Barrier(4)

    def open_all(number: int) -> None:
        together.wait()
        for step in range(200):
            path = list(paths)[(number + step) % 4]
            assert open_index(path).ntotal == paths[path]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_all, range(4)))


FORK_WHILE_A_FILE_IS_READ = """
import os, signal, sys
from pathlib import Path
from memorag_pipeline.retrieval import faiss_index

with faiss_index._vectors_of_at_most(1):
    process = os.fork()
    if process == 0:
        signal.alarm(30)
        assert faiss_index.open_index(Path(sys.argv[1])).ntotal == 20
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
"""


def test_a_process_forked_while_an_index_is_opened_opens_another(tmp_path: Path) -> None:
    path = written("IVF2,Flat", 20, tmp_path / "index")
    subprocess.run([sys.executable, "-c", FORK_WHILE_A_FILE_IS_READ, str(path)], check=True)


def test_the_limit_of_the_process_is_put_back(tmp_path: Path) -> None:
    before = faiss.get_deserialization_vector_byte_limit()
    assert before > 1 << 32
    write_index(build_index(IndexSpec(factory="Flat"), DIMENSIONS, len(VECTORS), parts), tmp_path / "index")
    open_index(tmp_path / "index")
    assert faiss.get_deserialization_vector_byte_limit() == before
    (tmp_path / "index").write_bytes(b"no index")
    with pytest.raises(CorruptBlobError):
        open_index(tmp_path / "index")
    assert faiss.get_deserialization_vector_byte_limit() == before


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


class OnGpu:
    """What an index on a GPU is to Faiss's Python: it trains, adds and counts, but is no class that it looks into."""

    def __init__(self, index: Any) -> None:
        self.index, self.trained_on = index, 0

    @property
    def is_trained(self) -> bool:
        return bool(self.index.is_trained)

    @property
    def d(self) -> int:
        return int(self.index.d)

    def train(self, vectors: npt.NDArray[np.float32]) -> None:
        self.trained_on = len(vectors)
        self.index.train(vectors)

    def add(self, vectors: npt.NDArray[np.float32]) -> None:
        self.index.add(vectors)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[OnGpu]:
    """A GPU as far as this module sees one; this build of Faiss has none, so that moving an index is all pretended."""
    moved: list[OnGpu] = []

    def to_gpu(resources: object, device: int, index: Any) -> OnGpu:
        moved.append(OnGpu(index))
        return moved[-1]

    extract, parts_of = faiss.try_extract_index_ivf, faiss_index._parts_of
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda there: there.index, raising=False)
    monkeypatch.setattr(
        faiss, "try_extract_index_ivf", lambda index: None if isinstance(index, OnGpu) else extract(index)
    )
    monkeypatch.setattr(faiss_index, "_parts_of", lambda index: parts_of(getattr(index, "index", index)))
    return moved


def test_on_a_gpu_an_index_is_trained_on_as_many_vectors_as_its_lists_need(
    gpu: list[OnGpu], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss_index, "_MOST_TRAINING_VECTORS", 4)  # for each centroid
    monkeypatch.setattr(faiss_index, "_PQ_CENTROIDS", 8)
    spec = IndexSpec(factory="IVF64,Flat", device="gpu")
    build_index(spec, DIMENSIONS, len(VECTORS), parts)
    train_index(spec, DIMENSIONS, len(VECTORS), parts)
    assert [there.trained_on for there in gpu] == [4 * 64 - 42] * 2  # every third of 640; without lists every 20th
    assert caplog.text.count("640 vectors are few for its lists") == 2
    for make in (build_index, train_index):
        with pytest.raises(MemoragError, match="cannot be trained on 640 vectors: it has 1024 lists"):
            make(IndexSpec(factory="IVF1024,Flat", device="gpu"), DIMENSIONS, len(VECTORS), parts)


def test_an_index_does_not_depend_on_how_its_vectors_are_divided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faiss_index, "_ADDED_AT_ONCE", 100)
    spec, added = IndexSpec(factory="IVF4,SQ8"), list[int]()
    add = faiss.IndexIVFScalarQuantizer.add
    monkeypatch.setattr(
        faiss.IndexIVFScalarQuantizer, "add", lambda index, vectors: added.append(len(vectors)) or add(index, vectors)
    )
    made = []
    for sizes in ([640], [7] * 91 + [3], [0, 250, 0, 250, 140]):
        ends = np.cumsum(sizes)
        index = build_index(
            spec,
            DIMENSIONS,
            len(VECTORS),
            lambda ends=ends, sizes=sizes: [VECTORS[end - size : end] for end, size in zip(ends, sizes, strict=True)],
        )
        write_index(index, tmp_path / "index")
        made.append((tmp_path / "index").read_bytes())
    assert made[0] == made[1] == made[2]
    assert added == 3 * [100, 100, 100, 100, 100, 100, 40]


@pytest.mark.parametrize(("factory", "ordered"), [("IVF16,Flat", 1), ("IVF16_HNSW8,Flat", 0)])
def test_only_plain_centroids_are_put_in_order(factory: str, ordered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, put_in_order = list[Any](), faiss_index._put_in_order
    monkeypatch.setattr(faiss_index, "_put_in_order", lambda index: calls.append(index) or put_in_order(index))
    template = train_index(IndexSpec(factory=factory), DIMENSIONS, len(VECTORS), parts)
    assert len(calls) == ordered
    assert template.quantizer.ntotal == 16
