"""An opened version in a service that stays up: workers are forked, its cache goes, a later refresh retires it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs

from memorag_pipeline import Version, open_version
from memorag_pipeline.errors import RetiredVersionError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from tests.fixtures.s3 import S3Server

REPOSITORY = Path(__file__).parents[1]
SERVER = """
import faulthandler, json, os, sys
import faiss, numpy, torch
from memorag_pipeline import open_version

version = open_version(sys.argv[1], storage_options=json.loads(sys.argv[2]), trust_models=True)
shards = list(version.memories())
large = faiss.IndexFlatIP(64)
large.add(numpy.ones((10_000, 64), numpy.float32))

def serve(shard):
    found = version.search("words", k=2)
    # As large indexes and models do: with all threads that there are.
    large.search(numpy.ones((100, 64), numpy.float32), 5)
    torch.ones(512, 512) @ torch.ones(512, 512)
    return len(found), version.memories()[shard].tokens > 0, len(list(version.documents()))

before = serve(shards[0])
process = os.fork()
if process == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    assert serve(shards[1]) == before
    assert next(version.chunks())["text"]
    os._exit(0)
assert os.waitpid(process, 0)[1] == 0
assert serve(shards[1]) == before
print(before)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A store with one version of two documents."""
    from benchmarks.tiny_models import tiny_embedding_model, tiny_memory_model

    folder = tmp_path_factory.mktemp("service")
    (folder / "source").mkdir()
    for name in ("one", "two"):
        (folder / "source" / f"{name}.txt").write_text(f"Words of document {name}. " * 40, encoding="utf-8")
    spec = {
        "corpus": "small",
        "source": {"uris": [str(folder / "source")]},
        "store": {"uri": str(folder / "store")},
        "sharding": {"max_tokens": 256, "min_tokens": 32},
        "memory": {"kind": "full", "model": str(tiny_memory_model(folder / "memory")), "window": 64},
        "embedding": {"model": str(tiny_embedding_model(folder / "embedding")), "pooling": "mean"},
    }
    pipeline = Pipeline(CorpusSpec.model_validate(spec))
    refresh(pipeline, "run")
    return pipeline


@pytest.fixture
def remote(corpus: Pipeline, s3_server: S3Server) -> str:
    """URI of a copy in S3."""
    bucket = s3_server.new_bucket()
    s3fs.S3FileSystem(**s3_server.options()).put(
        corpus.store.uri.removeprefix("file://"), f"{bucket}/c", recursive=True
    )
    return f"s3://{bucket}/c"


def test_workers_that_are_forked_after_a_version_was_used(remote: str, s3_server: S3Server, tmp_path: Path) -> None:
    environment = {
        "PATH": "",
        "PYTHONPATH": str(REPOSITORY),
        "MEMORAG_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-c", SERVER, remote, json.dumps(s3_server.options())]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "(2, True, 2)\n"


def uses(version: Version) -> list[tuple[str, Callable[[], object]]]:
    shard = next(iter(version.memories()))
    return [
        ("search", lambda: version.search("words")),
        ("documents", lambda: list(version.documents())),
        ("chunks", lambda: list(version.chunks())),
        ("memory", lambda: version.memories()[shard]),
    ]


def test_a_version_outlives_its_cache(
    remote: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MEMORAG_CACHE", str(cache))
    version = open_version(remote, storage_options=s3_server.options(), trust_models=True)
    expected = [len(version.search("words")), len(list(version.documents()))]
    for _, use in uses(version):
        shutil.rmtree(cache)
        assert use()
    assert [len(version.search("words")), len(list(version.documents()))] == expected


@pytest.mark.parametrize("opened", [True, False])
def test_a_version_that_is_retired_while_it_is_open_is_told(corpus: Pipeline, tmp_path: Path, opened: bool) -> None:
    shutil.copytree(corpus.store.uri.removeprefix("file://"), tmp_path / "small")
    store = CorpusStore(str(tmp_path / "small"))
    version = open_version(store.uri, trust_models=True)
    if opened:
        for _, use in uses(version):
            assert use()
    store.versions.retire(1, by="test", why="too old")
    for blob in version.manifest.blobs:  # as a sweep does after the grace period
        store.objects.delete(blob.ref.key)
    for name, use in uses(version):
        if opened and name in ("search", "memory"):
            assert use()  # is open
            continue
        with pytest.raises(RetiredVersionError, match=r"version 1 of .*/small was retired at .* by test: too old"):
            use()


def test_a_file_that_vanishes_while_it_is_opened_is_named(corpus: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(corpus.store.uri.removeprefix("file://"), tmp_path / "small")
    version = open_version(str(tmp_path / "small"), trust_models=True)
    open_file = version.store.blobs.open_file

    def vanishing(*arguments: object) -> Path:
        path = open_file(*arguments)  # type: ignore[arg-type]
        path.unlink()
        return path

    version.store.blobs.open_file = vanishing  # type: ignore[method-assign, assignment]
    for _, use in uses(version):
        with pytest.raises(Exception, match=r"of version 1") as caught:
            use()
        assert type(caught.value).__module__ == "memorag_pipeline.errors"
