"""The benchmark of size runs on a small corpus, and its documents, vectors and counts are what they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from benchmarks import index_kinds, scale
from benchmarks.figures import Report
from benchmarks.stand_ins import CountedObjects, traffic, vectors_of_texts
from benchmarks.synthetic import SyntheticCorpus
from memorag_pipeline.refresh.stages import REFRESH
from tests.fixtures.s3 import S3Server

OPTIONS = "--documents 40 --shares 0 0.1 --places scattered --modes delta --chunks 700 --queries 20 --dimensions 32"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("scale")
    path, threads = folder / "figures.jsonl", torch.get_num_threads()

    @contextmanager
    def running(_: Path) -> Iterator[S3Server]:
        yield s3_server

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        patch.setenv("TOKENIZERS_PARALLELISM", "set by the benchmark, restored after it")
        patch.setattr("benchmarks.scale_reader.run_s3_server", running)
        scale.main([*OPTIONS.split(), "--only", *scale.ROWS[:4], "--folder", str(folder), "--append", str(path)])
    torch.set_num_threads(threads)
    assert list(folder.iterdir()) == [path]  # stores and caches are thrown away
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_row(figures: list[dict[str, Any]], row: str) -> dict[str, dict[str, Any]]:
    return {figure["what"]: figure for figure in figures if figure["row"] == row}


def test_every_stage_of_every_night_is_measured(figures: list[dict[str, Any]]) -> None:
    stages = of_row(figures, "stage")
    names = [stage.name for stage in REFRESH]
    assert list(stages) == [
        *(f"delta: first build: {name}" for name in names),
        "delta: 0.0%: inventory",
        *(f"delta: 10.0% scattered: {name}" for name in names),
    ]
    assert all(figure["seconds"] > 0 and figure["calls"] > 0 and figure["peak_mib"] > 0 for figure in stages.values())
    assert stages["delta: 10.0% scattered: extract"]["edited"] == 4


def test_bytes_of_the_index_are_among_those_written(figures: list[dict[str, Any]]) -> None:
    (grown,) = of_row(figures, "grown").values()
    stage = of_row(figures, "stage")["delta: 10.0% scattered: index"]
    assert 0 < grown["new_mb"] <= stage["written_mb"]
    assert 0 < grown["new_chunks"] < grown["chunks"]
    assert grown["times_share_of_documents"] == pytest.approx(grown["new_mb"] / (0.1 * grown["all_mb"]), rel=1e-3)
    (size,) = of_row(figures, "size").values()
    assert size["index_mb"] + size["segment_rows_mb"] == pytest.approx(grown["all_mb"], rel=0.2)


def test_what_reads_a_version_is_measured(figures: list[dict[str, Any]]) -> None:
    assert list(of_row(figures, "commands")) == ["delta: open", "delta: diff", "delta: forecast"]
    reader = of_row(figures, "reader")
    assert reader["first search"]["fetched_mb"] > reader["second search"]["fetched_mb"]
    assert of_row(figures, "night")["delta: 0.0%"]["ratio"] > 0


def test_the_index_stage_finds_what_a_comparison_with_all_vectors_finds(figures: list[dict[str, Any]]) -> None:
    index = of_row(figures, "index")
    assert index["search"]["recall"] == 1.0
    assert index["build"]["made_mb"] > 700 * 32 * 4 / 1e6


def test_documents_depend_on_number_and_revision_alone() -> None:
    small, large = SyntheticCorpus("small", 20).serve(), SyntheticCorpus("large", 300).serve()
    assert [small.data(number) for number in range(20)] == [large.data(number) for number in range(20)]
    before = large.data(7)
    large.edit([7])
    after = large.data(7)
    assert after != before and len(after) == len(before) + 8 == large.size(7)
    same = sum(a == b for a, b in zip(before, after, strict=False))
    assert same < len(before)
    fs, root = fsspec.core.url_to_fs(large.uri)
    listed = fs.find(root, detail=True)
    assert len(listed) == 300
    for path, info in listed.items():
        assert len(fs.cat_file(path)) == info["size"]
    assert listed[large.path(7)]["ETag"] != listed[large.path(8)]["ETag"]


def test_edits_are_a_share_of_the_corpus() -> None:
    corpus = SyntheticCorpus("many", 5000)
    scattered, clustered = corpus.scattered(0.01, 1), corpus.clustered(0.01, 1)
    assert len(scattered) == len(set(scattered)) == len(clustered) == 50
    assert clustered == list(range(clustered[0], clustered[0] + 50)) and clustered[0] % 1000 == 0
    assert max(np.diff(scattered)) > 1
    assert corpus.scattered(0.01, 2) != scattered


def test_vectors_depend_on_the_text_alone() -> None:
    vectors = vectors_of_texts(["a", "b", "a"], 48)
    assert np.array_equal(vectors[0], vectors[2]) and not np.array_equal(vectors[0], vectors[1])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors_of_texts(["b"], 48)[0], vectors[1])


def test_the_store_counts_what_goes_through(tmp_path: Path) -> None:
    store = CountedObjects(f"counted://{tmp_path}/kb", {})
    before = traffic()
    assert store.create(f"{store.root}/a", b"12345") and not store.create(f"{store.root}/a", b"12345")
    store.put(f"{store.root}/b", b"123")
    assert store.read(f"{store.root}/a", 3) == b"123"
    store.download(f"{store.root}/b", tmp_path / "copy", 10)
    assert b"".join(store.pieces(f"{store.root}/a", 10)) == b"12345"
    assert {Path(stored.key).name for stored in store.listing(store.root)} == {"a", "b"}
    assert store.file(f"{store.root}/a") is None
    moved = traffic() - before
    assert (moved.written, moved.read, moved.calls) == (8, 11, 7)


def test_kinds_of_indexes_are_compared_with_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {number}" for number in range(330)]
    monkeypatch.setattr(index_kinds, "_real_vectors", lambda count: vectors_of_texts(texts[:count], 32))
    path = tmp_path / "figures.jsonl"
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        index_kinds.measure_kinds([1500], 300, 30, tmp_path, Report("scale", {}, path))
    figures = [json.loads(line) for line in path.read_text().splitlines()]
    assert {figure["what"] for figure in figures} == index_kinds.kinds(1500).keys()
    flat, plain = figures[:2]
    assert flat["recall"] == 1.0 and flat["bytes_a_vector"] == pytest.approx(128, abs=1)
    assert plain["what"] == "SQ8" and plain["bytes_a_vector"] == pytest.approx(32, abs=1) and plain["recall"] > 0.9
    assert all(figure["recall"] > 0.3 and figure["ms_a_query"] > 0 for figure in figures)


def test_enlarged_vectors_lie_among_the_real_ones() -> None:
    real = vectors_of_texts([f"text {number}" for number in range(200)], 32)
    many = index_kinds.enlarged(real, 1000)
    assert many.shape == (1000, 32) and np.array_equal(many[:200], real)
    assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    assert (many[200:] @ real.T).max(axis=1).mean() > 0.7
    assert len(np.unique(many, axis=0)) == 1000
