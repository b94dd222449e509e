"""Kinds of Faiss indexes over vectors of real chunks: bytes, build, recall and time of a search, to choose a default.

In:  texts of ../shared/data; a number of vectors.
Out: for each kind and effort of search bytes a vector, seconds to build, recall@10 against Flat, CPU milliseconds a
     query.

Chunks of the documentation site and of the texts of the evaluation sets are embedded by all-MiniLM-L6-v2; some of them,
of all places, are the queries. The others are made many: to a vector a part of the way to one of its ten nearest is
added, and a part of the way between two others of these, so that all lie where real ones do. One thread, one query at a
time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.figures import Report
from benchmarks.knowledge_base import read_days
from benchmarks.retrieval import FOLDER, SETS, document_chunker
from benchmarks.stand_ins import Vectors
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.text import read_text
from memorag_pipeline.evaluation.recall_quality import EMBEDDING, read_questions
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.specs.source import ChunkingSpec

K = 10
_NEIGHBOURS, _TOWARDS, _ASIDE = 10, 0.7, 0.5
_MOST_TRAINING_VECTORS = 256  # for each list, as Faiss itself and retrieval.faiss_index have it
_BLOCK = 20_000

# For each kind the efforts of a search: lists that are looked into, candidates of a graph, what is refined of each
# passage wanted.
Effort = dict[str, float]
LISTS = tuple({"nprobe": lists} for lists in (8, 16, 32, 64, 128))
REFINED = tuple({"k_factor": factor, "nprobe": lists} for lists in (16, 32, 64) for factor in (4, 10))


def kinds(count: int) -> dict[str, Sequence[Effort]]:
    """The kinds that are compared, with lists as for `count` vectors."""
    lists = lists_for(count)
    return {
        "Flat": [{}],
        "SQ8": [{}],
        f"IVF{lists},SQ8": LISTS,
        f"IVF{lists},RaBitQ4": LISTS,
        f"IVF{lists},RaBitQ,Refine(SQ8)": REFINED,
        f"IVF{lists},RaBitQfs,Refine(SQ8)": REFINED,
        "HNSW32,SQ8": [{"efSearch": 32}, {"efSearch": 64}, {"efSearch": 128}],
    }


def lists_for(count: int) -> int:
    """Lists of an index: about twice the root of the count, a power of two, with enough vectors in each to train."""
    return max(1, 1 << round(np.log2(2 * count**0.5)))


def measure_kinds(
    counts: Sequence[int], chunks: int, queries: int, folder: Path, report: Report, only: Sequence[str] = ()
) -> None:
    """All kinds, or `only` inverted lists of these, over each number of vectors, made from those of so many chunks."""
    real = _real_vectors(chunks + queries)
    random = np.random.default_rng(7)
    places = random.permutation(len(real))
    asked, base = real[places[:queries]], real[places[queries:]]
    faiss.omp_set_num_threads(1)
    for count in counts:
        vectors = enlarged(base, count)
        nearest = _nearest(asked, vectors)
        for kind, efforts in (dict.fromkeys(only, LISTS) or kinds(count)).items():
            cpu, started = time.process_time(), time.perf_counter()
            index = _built(kind, vectors)
            built = {"build_seconds": time.perf_counter() - started, "build_cpu_seconds": time.process_time() - cpu}
            faiss.write_index(index, str(folder / "index"))
            size = (folder / "index").stat().st_size / count
            for effort in efforts:
                _apply(index, effort)
                found, milliseconds = _searched(index, asked)
                hits = sum(len(set(mine) & set(best)) for mine, best in zip(found, nearest.tolist(), strict=True))
                values = {"vectors": count, "real": len(base), "bytes_a_vector": size, **built}
                values |= {"recall": hits / nearest.size, "ms_a_query": milliseconds, **effort}
                report.values("kinds", kind, values)
            del index


def enlarged(base: Vectors, count: int) -> Vectors:
    """Normalized vectors among those of `base`, which come first."""
    random = np.random.default_rng(8)
    exact = faiss.IndexFlatIP(base.shape[1])
    exact.add(base)
    near = exact.search(base, _NEIGHBOURS + 1)[1][:, 1:]
    made = [base[:count]]
    for start in range(len(base), count, _BLOCK):
        rows = random.integers(len(base), size=min(_BLOCK, count - start))
        there, one, other = (base[near[rows, random.integers(near.shape[1], size=len(rows))]] for _ in range(3))
        towards = random.uniform(0, _TOWARDS, (len(rows), 1)).astype(np.float32)
        aside = random.uniform(-_ASIDE, _ASIDE, (len(rows), 1)).astype(np.float32)
        vectors = base[rows] + towards * (there - base[rows]) + aside * (one - other)
        made.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return np.concatenate(made)


def _real_vectors(count: int) -> Vectors:
    texts: list[str] = []
    for text in _texts():
        if len(texts) >= 2 * count:  # more than enough
            break
        texts.append(text)
    step = max(1, len(texts) // count)
    return load_embedder(EMBEDDING).embed_passages(texts[::step][:count])


def _texts() -> Iterator[str]:
    """Distinct texts of chunks: of the site, and of the contexts of the English sets."""
    chunker, parser = document_chunker(ChunkingSpec()), Parser(max_pages=5000, max_characters=20_000_000)
    seen = set[str]()

    def new(text: str) -> bool:
        known = text in seen
        seen.add(text)
        return not known

    for path, data in read_days()[0].items():
        document = read_text(path, data, "en", parser, 1 << 26, 200)
        for chunk in chunker.cut(path, document.text, document.is_markdown, document.headings):
            if new(chunk.text):
                yield chunk.text
    for name in SETS[:2]:
        contexts = {each.context_id: each.context for each in read_questions(FOLDER / f"{name}.dev.jsonl", 10_000)}
        for uri, context in contexts.items():
            for chunk in chunker.cut(uri, context, markdown=False):
                if new(chunk.text):
                    yield chunk.text


def _built(kind: str, vectors: Vectors) -> Any:
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        inverted = faiss.try_extract_index_ivf(_inner(index))
        most = _MOST_TRAINING_VECTORS * max(inverted.nlist if inverted else 0, 256)
        index.train(vectors[:: max(1, len(vectors) // most)])
    for start in range(0, len(vectors), _BLOCK):
        index.add(vectors[start : start + _BLOCK])
    return index


def _inner(index: Any) -> Any:
    return faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index


def _apply(index: Any, effort: Effort) -> None:
    inner = _inner(index)
    if "nprobe" in effort:
        inner.nprobe = min(int(effort["nprobe"]), inner.nlist)
    if "efSearch" in effort:
        inner.hnsw.efSearch = int(effort["efSearch"])
    if "k_factor" in effort:
        index.k_factor = effort["k_factor"]


def _searched(index: Any, asked: Vectors) -> tuple[list[list[int]], float]:
    """The numbers that are found for each query, and CPU milliseconds of a query in the median."""
    found, seconds = [], []
    for row in range(len(asked)):
        started = time.thread_time()
        _, numbers = index.search(asked[row : row + 1], K)
        seconds.append(time.thread_time() - started)
        found.append(numbers[0].tolist())
    return found, 1000 * float(np.median(seconds))


def _nearest(asked: Vectors, vectors: Vectors) -> Any:
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    return exact.search(asked, K)[1]
