"""The contract of an object store, on every backend: one winner, whole objects, clear errors."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memorag_pipeline.errors import ObjectNotFoundError, StorageError
from memorag_pipeline.storage import ObjectStore
from memorag_pipeline.storage.objects import BACKENDS
from tests.storage.conftest import PROTOCOLS, Root, races, root_of

WRITERS = 16


@pytest.fixture(params=[*PROTOCOLS, "dict"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """An empty root of each protocol, and of one that docs/adding.md adds."""
    monkeypatch.setitem(BACKENDS, "dict", "tests.adding.dict_store:DictObjects")
    return root_of(request.param, request, tmp_path)


def test_every_backend_is_tested() -> None:
    assert {BACKENDS[protocol] for protocol in PROTOCOLS} == set(BACKENDS.values())


def race(create: Callable[[int], bool]) -> list[int]:
    """The writers that won, of WRITERS that start together."""
    gate = threading.Barrier(WRITERS)

    def run(writer: int) -> bool:
        gate.wait()
        return create(writer)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            return [writer for writer, won in enumerate(pool.map(run, range(WRITERS))) if won]
    finally:
        sys.setswitchinterval(interval)


def test_of_many_threads_exactly_one_creates_an_object(root: Root) -> None:
    stores = [ObjectStore(*root) for _ in range(WRITERS)]
    for number in range(races(root)):
        key = f"versions/{number:020d}.json"
        winners = race(lambda writer, key=key: stores[writer].create(key, b"writer %d" % writer))
        assert len(winners) == 1
        assert stores[0].read(key) == b"writer %d" % winners[0]


def test_of_many_files_exactly_one_becomes_the_object(objects: ObjectStore, tmp_path: Path) -> None:
    files = [tmp_path / f"file-{writer}" for writer in range(WRITERS)]
    for writer, file in enumerate(files):
        file.write_bytes(b"%03d" % writer * 100_000)
    winners = race(lambda writer: objects.create_from_file("blobs/x", files[writer]))
    assert len(winners) == 1
    assert objects.read("blobs/x") == files[winners[0]].read_bytes()


def test_an_object_keeps_its_first_bytes(objects: ObjectStore) -> None:
    assert objects.create("a/b", b"first")
    assert not objects.create("a/b", b"second")
    assert objects.read("a/b") == b"first"


def test_an_empty_object_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(ValueError, match="empty"):
        objects.create("a/b", b"")


def test_what_another_writer_did_is_seen_at_once(root: Root) -> None:
    mine = ObjectStore(*root)
    with ThreadPoolExecutor(1) as pool:  # fsspec gives one thread the same file system twice
        theirs = pool.submit(ObjectStore, *root).result()
    assert mine.size("a/b") is None
    assert mine.list("a") == []
    theirs.create("a/b", b"12345")
    assert mine.size("a/b") == 5
    assert mine.list("a") == ["a/b"]
    theirs.put("a/b", b"123")
    assert mine.size("a/b") == 3
    theirs.delete("a/b")
    assert mine.size("a/b") is None
    assert mine.list("a") == []


def test_keys_are_listed_sorted_and_only_below_the_folder(objects: ObjectStore) -> None:
    for key in ("a/2", "a/1", "a/b/3", "ab/4"):
        objects.create(key, b"x")
    assert objects.list("a") == ["a/1", "a/2", "a/b/3"]


def test_an_object_tells_its_size_and_age_and_becomes_young_by_a_touch(objects: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 keeps whole seconds
    objects.create("a/b", b"12345")
    stored = objects.stat("a/b")
    assert stored is not None
    assert (stored.key, stored.size) == ("a/b", 5)
    assert before <= stored.modified <= datetime.now(UTC) + timedelta(seconds=1)
    assert [(item.key, item.size) for item in objects.listing("a")] == [("a/b", 5)]
    time.sleep(1.1)
    objects.touch("a/b")
    (touched,) = objects.listing("a")
    assert touched.modified > stored.modified
    assert objects.read("a/b") == b"12345"
    assert objects.stat("a/none") is None
    with pytest.raises(ObjectNotFoundError, match="a/none"):
        objects.touch("a/none")


def test_a_missing_object_is_named(objects: ObjectStore, tmp_path: Path) -> None:
    for read in (
        objects.read,
        lambda key: list(objects.pieces(key, 10)),
        lambda key: objects.download(key, tmp_path / "t", 10),
    ):
        with pytest.raises(ObjectNotFoundError, match=f"{objects.uri}/a/none"):
            read("a/none")
    objects.delete("a/none")


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a//x", "a/./x", "", "a/\0"])
def test_a_key_cannot_leave_the_root(objects: ObjectStore, key: str) -> None:
    for call in (objects.read, objects.size, objects.delete, objects.list, lambda key: objects.create(key, b"x")):
        with pytest.raises(StorageError, match="cannot leave"):
            call(key)


@pytest.mark.parametrize("size", [1, 20_000_000, 40_000_000])
def test_files_go_up_and_down_whole(objects: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    assert objects.create_from_file("blobs/x", source)
    assert not objects.create_from_file("blobs/x", source)
    assert objects.size("blobs/x") == size
    objects.download("blobs/x", target, size)
    assert target.read_bytes() == source.read_bytes()
    assert b"".join(objects.pieces("blobs/x", size)) == source.read_bytes()


def test_a_reader_never_sees_half_a_record(root: Root) -> None:
    """A record that is replaced over and over is always one of the two whole ones."""
    store, whole = ObjectStore(*root), {b"a" * 300_000, b"b" * 300_000}
    store.put("units/x", b"a" * 300_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in sorted(whole):
                store.put("units/x", data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(store.read("units/x") in whole for _ in range(30))
    finally:
        stop.set()
        writer.join()
