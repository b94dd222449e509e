"""Faiss indexes from a factory string: built the same way each time, searched from a memory-mapped file.

In:  an index spec and vectors, part by part; later the index's file.
Out: a Faiss index over inner products.
Wrong: too few vectors to train on, an index kind without GPU support, a file that is not an index: a MemoragError.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.machine.forks import one_thread_after_fork
from memorag_pipeline.specs.retrieval import IndexSpec

Vectors = npt.NDArray[np.float32]

# Faiss itself trains on at most this many vectors for each centroid, and calls fewer than 39 too few.
_MOST_TRAINING_VECTORS = 256
_LEAST_TRAINING_VECTORS = 39
_TRAINING_BYTES = 1 << 30  # of vectors at most, if there are enough for each centroid
_PQ_CENTROIDS = 256
# Faiss compares few vectors with centroids one by one: 320 at a time with 8,192 take 12 times as long for each.
_ADDED_AT_ONCE = 16_384
_MOST_ORDERED = 8192  # inverted lists whose centroids are compared with each other, 256 MB of numbers
_EF_SEARCH = 64
_MOST_LISTS = 64  # that a search looks into: of 2,048 over a million vectors twice as many find 0.03 % more

_opening = threading.Lock()  # Faiss's limit for a file's vectors is per process
logger = logging.getLogger(__name__)


def train_index(spec: IndexSpec, dimensions: int, count: int, parts: Callable[[], Iterable[Vectors]]) -> Any | None:
    """An empty index that was trained on the vectors [rows, dimensions] of `parts`, or on a sample of them.

    `count` is their number. None for a kind that needs no training. Equal vectors give an equal index, see
    `build_index`.
    """
    index = _new(spec, dimensions)
    if index.is_trained:
        return None
    with _reproducible(spec.factory):
        lists = _lists(index)
        index = _on_device(index, spec, lambda there: _train(there, spec, count, parts, lists))
    _set_search_effort(index)
    inverted: Any = faiss.downcast_index(index)
    if _has_plain_centroids(inverted) and inverted.nlist <= _MOST_ORDERED:
        _put_in_order(inverted)
    return index


def _has_plain_centroids(index: Any) -> bool:
    """Whether it has inverted lists whose quantizer has no structure of its own, such as a graph."""
    if not isinstance(index, faiss.IndexIVF):
        return False
    quantizer: Any = index.quantizer
    return isinstance(faiss.downcast_index(quantizer), faiss.IndexFlat)


def _put_in_order(index: Any) -> None:
    """Number the inverted lists so that neighbours by content are neighbours in a file: each after the one nearest.

    A query looks into lists that are near each other, and so into few ranges of a file.
    """
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    alike = centroids @ centroids.T
    order = [0]
    for _ in range(1, index.nlist):
        alike[:, order[-1]] = -np.inf
        order.append(int(alike[order[-1]].argmax()))
    index.quantizer.reset()
    index.quantizer.add(centroids[order])


def build_index(
    spec: IndexSpec,
    dimensions: int,
    count: int,
    parts: Callable[[], Iterable[Vectors]],
    template: Path | None = None,
) -> Any:
    """An index over the vectors [rows, dimensions] that each call of `parts` yields; `count` rows in all.

    `template` is the file of an index that `train_index` made; without it, one of a kind that needs training is trained
    on its own vectors. Equal vectors give an equal index: Faiss's random numbers are seeded, and where a result depends
    on the number of threads (graphs, and the matrix kernels of PCA and OPQ) only one is used. Only training reads
    `parts` twice.
    """
    index = _new(spec, dimensions) if template is None else _read(template, faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)

    lists = _lists(index)

    def fill(there: Any) -> None:
        if not there.is_trained:
            _train(there, spec, count, parts, lists)
        for vectors in _in_batches(parts()):
            there.add(vectors)

    with _reproducible(spec.factory):
        index = _on_device(index, spec, fill)
    _set_search_effort(index)
    return index


def _new(spec: IndexSpec, dimensions: int) -> Any:
    try:
        return faiss.index_factory(dimensions, spec.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise MemoragError(
            f"index.factory {spec.factory} does not suit vectors of {dimensions} dimensions: {_reason(error)}"
        ) from error


def _reproducible(factory: str) -> contextlib.AbstractContextManager[None]:
    return _one_thread() if re.search("HNSW|PCA|OPQ", factory) else contextlib.nullcontext()


def write_index(index: Any, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(index, str(path))


def open_index(path: Path, mapped: bool = True) -> Any:
    """The index in a file, memory-mapped: vectors are read from disk as searches need them. Else it can be added to."""
    one_thread_after_fork(faiss.omp_set_num_threads)
    # A table of products that only L2 distances use; it may be larger than the file, and is not needed here.
    index = _read(path, faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE | (faiss.IO_FLAG_MMAP_IFC if mapped else 0))
    if any(isinstance(part, faiss.IndexHNSWPQ) for part in _parts_of(index)):
        raise MemoragError(
            f"{path}: an index of kind HNSW,PQ gives distances, not inner products, so its order would be wrong; set"
            " index.factory to HNSW32,SQ8 and refresh"
        )
    return index


def _read(path: Path, flags: int = 0) -> Any:
    try:
        with _vectors_of_at_most(path.stat().st_size):
            return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise CorruptBlobError(f"{path}: not a Faiss index that this version reads ({_reason(error)})") from error


def cosine(index: Any, row: int, vector: Vectors) -> float:
    """The inner product of a row's stored vector with `vector`: the score that a search would give."""
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for number in range(chain.size()):
            vector = faiss.downcast_VectorTransform(chain.at(number)).apply(vector[None])[0]
        return cosine(faiss.downcast_index(index.index), row, vector)
    inverted = faiss.try_extract_index_ivf(index)
    if inverted:
        inverted.make_direct_map()  # location of each row; does nothing the second time
    return float(index.reconstruct(row) @ vector)


def _lists(index: Any) -> int:
    """The number of an index's inverted lists, 0 without any; to be asked before it is moved to a GPU, where Faiss
    does not know it as an IVF."""
    inverted = faiss.try_extract_index_ivf(index)
    return int(inverted.nlist) if inverted else 0


def _train(index: Any, spec: IndexSpec, count: int, parts: Callable[[], Iterable[Vectors]], lists: int) -> None:
    if lists:
        if count < lists:
            raise _untrainable(spec, count, f"it has {lists} lists")
        if count < lists * _LEAST_TRAINING_VECTORS:
            logger.warning("index.factory %s: %d vectors are few for its lists; %s", spec.factory, count, _fit(count))
    _prepare(index)
    centroids = max(lists, _PQ_CENTROIDS)
    most = max(_TRAINING_BYTES // (4 * index.d), _LEAST_TRAINING_VECTORS * centroids)
    most = min(most, _MOST_TRAINING_VECTORS * centroids)
    try:
        index.train(_sample(parts, step=-(-count // most)))
    except RuntimeError as error:
        raise _untrainable(spec, count, _reason(error)) from error


def _in_batches(parts: Iterable[Vectors]) -> Iterator[Vectors]:
    """The vectors of all parts, `_ADDED_AT_ONCE` at a time, however they are divided."""
    held, rows = list[Vectors](), 0
    for vectors in parts:
        held.append(vectors)
        rows += len(vectors)
        while rows >= _ADDED_AT_ONCE:
            joined = np.concatenate(held)
            yield joined[:_ADDED_AT_ONCE]
            held = [joined[_ADDED_AT_ONCE:]]
            rows -= _ADDED_AT_ONCE
    if rows:
        yield np.concatenate(held)


def _sample(parts: Callable[[], Iterable[Vectors]], step: int) -> Vectors:
    """Every `step`-th vector of all parts."""
    taken, seen = [], 0
    for vectors in parts():
        taken.append(vectors[-seen % step :: step])
        seen += len(vectors)
    return np.concatenate(taken)


def _on_device(index: Any, spec: IndexSpec, work: Callable[[Any], None]) -> Any:
    """The index after `work` was done with it, on the GPU if the spec says so."""
    if spec.device != "gpu":
        work(index)
        return index
    if not faiss.get_num_gpus():
        raise MemoragError("index.device is gpu, but this worker sees no GPU; set cpu, or run index on a GPU worker")
    resources = faiss.StandardGpuResources()
    try:
        on_gpu = faiss.index_cpu_to_gpu(resources, 0, index)
    except RuntimeError as error:
        raise MemoragError(
            f"index.factory {spec.factory} cannot be built on a GPU ({_reason(error)}); set index.device: cpu"
        ) from error
    work(on_gpu)
    return faiss.index_gpu_to_cpu(on_gpu)


def _set_search_effort(index: Any) -> None:
    """Search more lists, or further along the graph, than Faiss does by default; the numbers are kept in the file."""
    if inverted := faiss.try_extract_index_ivf(index):
        inverted.nprobe = min(inverted.nlist, max(8, min(inverted.nlist // 16, _MOST_LISTS)))
    innermost = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if isinstance(innermost, faiss.IndexHNSW):
        innermost.hnsw.efSearch = _EF_SEARCH


def _prepare(index: Any) -> None:
    """Skip parts of training that are not needed here.

    Faiss warns about few vectors, one line per sub-quantizer, on standard error. It also orders the codes of a
    product quantizer so that their bits can be compared, which no search here does, and which takes most of the time.
    """
    for part in _parts_of(index):
        for clustering in (getattr(part, "cp", None), getattr(getattr(part, "pq", None), "cp", None)):
            if clustering:
                clustering.min_points_per_centroid = 1
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False


def _parts_of(index: Any) -> Iterator[Any]:
    """An index and its inner indexes: after a transform of the vectors, or below a graph."""
    index = faiss.downcast_index(index)
    yield index
    for name in ("index", "storage"):
        if inner := getattr(index, name, None):
            yield from _parts_of(inner)


def _untrainable(spec: IndexSpec, count: int, why: str) -> MemoragError:
    return MemoragError(f"index.factory {spec.factory} cannot be trained on {count} vectors: {why}; {_fit(count)}")


def _fit(count: int) -> str:
    lists = count // _LEAST_TRAINING_VECTORS
    return f"Flat, HNSW32 or IVF{lists},Flat would fit" if lists > 1 else "Flat or HNSW32 would fit"


def _reason(error: RuntimeError) -> str:
    """Faiss's own words, without the C++ function, file and line before them."""
    return re.sub(r"^Error in .*? at \S+:\d+: (Error: .*? failed: )?", "", str(error).strip())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _new_lock() -> None:
    """In a forked child: a thread of the parent may have held the lock, and does not exist here to release it."""
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


@contextlib.contextmanager
def _vectors_of_at_most(size: int) -> Iterator[None]:
    """Limit the vectors in a file to the file's size: Faiss allocates memory by the sizes that the file declares."""
    with _opening:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
