"""Publishing and opening over a network that fails one request in eight, in every way; many publishers at once."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.packages.export import export_version
from memorag_pipeline.storage.packages.import_version import import_version
from memorag_pipeline.storage.verify import verify
from tests.fixtures.s3 import S3Server
from tests.storage.conftest import Root, manifest_of
from tests.storage.unreliable_proxy import FAULTS, unreliable

PUBLISHERS = 16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))


def publish_at_once(root: Root, contents: list[bytes]) -> list[int]:
    """Publish a version with each of `contents`, all at the same time; the numbers that they got."""
    gate = threading.Barrier(len(contents))

    def run(number: int) -> int:
        store = CorpusStore(*root)
        manifest = manifest_of(store, documents=contents[number], index=b"the same for all")
        gate.wait()
        return store.versions.publish(manifest, f"run-{number}").version

    with ThreadPoolExecutor(len(contents)) as pool:
        return list(pool.map(run, range(len(contents))))


def require_one_chain(store: CorpusStore, versions: int) -> None:
    """Versions 1 to `versions`, each the child of the one before, in record and manifest, all blobs there."""
    assert list(store.versions.numbers()) == list(range(1, versions + 1))
    for number in range(1, versions + 1):
        parent = number - 1 or None
        assert store.versions.record(number).parent == store.versions.manifest(number).parent == parent
        assert store.versions.missing(store.versions.manifest(number)) == []
    assert len({store.versions.record(number).write_id for number in range(1, versions + 1)}) == versions
    assert list(store.objects.list("intents")) == []


def test_sixteen_publishers_at_once_make_one_chain(s3_store: Root) -> None:
    numbers = publish_at_once(s3_store, [b"content %d" % number for number in range(PUBLISHERS)])
    assert sorted(numbers) == list(range(1, PUBLISHERS + 1))
    store = CorpusStore(*s3_store)
    require_one_chain(store, PUBLISHERS)
    for publisher, version in enumerate(numbers):
        (blob,) = store.versions.manifest(version).of_role("documents")
        assert store.blobs.get_bytes(blob.ref) == b"content %d" % publisher
        assert store.versions.record(version).run_id == f"run-{publisher}"


def test_sixteen_publishers_of_the_same_make_one_version(s3_store: Root) -> None:
    numbers = publish_at_once(s3_store, [b"content"] * PUBLISHERS)
    assert set(numbers) == {1}
    require_one_chain(CorpusStore(*s3_store), 1)


def test_everything_goes_through_an_unreliable_network(s3_server: S3Server, s3_store: Root, tmp_path: Path) -> None:
    """Publish, look up, verify, open, export and import, with every kind of fault on the way."""
    with unreliable(s3_server.endpoint, share=0.15, seed=7) as proxy:
        store = CorpusStore(s3_store[0], {**s3_store[1], "endpoint_url": proxy.endpoint})
        large = tmp_path / "large"
        large.write_bytes(os.urandom(40_000_000))
        ref = store.blobs.put_file(large)
        manifest = manifest_of(store, **{f"role{number}": b"content %d" % number for number in range(40)})
        published = store.versions.publish(manifest, "run-1")
        assert (published.version, published.created) == (1, True)
        assert verify(store, 1) == []
        assert store.blobs.open_file(ref).read_bytes() == large.read_bytes()
        assert store.blobs.problem(ref) is None
        export_version(store, 1, tmp_path / "package.tar")
        assert import_version(tmp_path / "package.tar", store, "import-1").version == 1
        for number in range(8):
            store.units._objects.put(f"units/test/{number}.json", b"%d" % number)
            assert store.objects.read(f"units/test/{number}.json") == b"%d" % number
            store.objects.delete(f"units/test/{number}.json")
        assert store.objects.list("units") == []
        assert set(proxy.struck) == set(FAULTS), proxy.struck
    require_one_chain(CorpusStore(*s3_store), 1)


@pytest.mark.long
def test_sixteen_publishers_over_an_unreliable_network(s3_server: S3Server, s3_store: Root) -> None:
    with unreliable(s3_server.endpoint, share=0.125, seed=3) as proxy:
        root = (s3_store[0], {**s3_store[1], "endpoint_url": proxy.endpoint})
        for _ in range(3):
            before = CorpusStore(*s3_store).versions.newest() or 0
            numbers = publish_at_once(root, [os.urandom(20) for _ in range(PUBLISHERS)])
            assert sorted(numbers) == list(range(before + 1, before + PUBLISHERS + 1))
        assert sum(proxy.struck.values()) > 100
    require_one_chain(CorpusStore(*s3_store), 3 * PUBLISHERS)
