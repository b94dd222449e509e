"""The promises of an object store, on every backend: one winner, whole objects, clear errors."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import ObjectNotFoundError, StorageError
from memorag_pipeline.storage import ObjectStore
from tests.storage.conftest import Root

WRITERS = 16


def races(root: Root) -> int:
    """SeaweedFS takes one to two seconds to settle a race."""
    return 2 if root[0].startswith("s3://") else 20


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


def _create_in_process(root: Root, gate: Any, writer: int, won: Any) -> None:
    store = ObjectStore(*root)
    for number in range(races(root)):
        gate.wait()
        if store.create(f"versions/{number}.json", b"writer %d" % writer):
            won.put((number, writer))


def test_of_many_processes_exactly_one_creates_an_object(tmp_path: Path, s3_store: Root) -> None:
    context = multiprocessing.get_context("spawn")
    for root in ((str(tmp_path / "root"), {}), s3_store):
        gate, won = context.Barrier(3), context.Queue()
        writers = [context.Process(target=_create_in_process, args=(root, gate, n, won)) for n in range(3)]
        for process in writers:
            process.start()
        for process in writers:
            process.join()
            assert process.exitcode == 0
        winners = dict(won.get(timeout=5) for _ in range(races(root)))
        assert won.empty()
        store = ObjectStore(*root)
        assert {n: store.read(f"versions/{n}.json") for n in winners} == {
            n: b"writer %d" % w for n, w in winners.items()
        }


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


def test_a_lost_upload_in_parts_leaves_nothing_behind(s3_store: Root, tmp_path: Path) -> None:
    objects, source = ObjectStore(*s3_store), tmp_path / "source"
    source.write_bytes(b"x" * 40_000_000)
    assert objects.create("blobs/x", b"first")
    assert not objects.create_from_file("blobs/x", source)
    assert objects.read("blobs/x") == b"first"
    s3 = objects._backend._fs  # type: ignore[attr-defined]
    assert not s3.call_s3("list_multipart_uploads", Bucket=s3_store[0].removeprefix("s3://")).get("Uploads")


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


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """The temporary file of a local writer is not listed and does not stand in the way."""
    objects = ObjectStore(str(tmp_path))
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / ".part-abc").write_bytes(b"half")
    assert objects.list("versions") == []
    assert objects.create("versions/1", b"whole")
    assert objects.list("versions") == ["versions/1"]


def test_a_failed_local_write_leaves_no_file(tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path / "root"))
    with pytest.raises(StorageError, match="IsADirectoryError"):
        objects.create_from_file("blobs/x", tmp_path)
    assert not list((tmp_path / "root").rglob("*"))


def test_a_folder_in_the_place_of_an_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "units" / "x").mkdir(parents=True)
    objects = ObjectStore(str(tmp_path))
    for call in (objects.read, objects.size):
        with pytest.raises(StorageError, match=r"units/x.*IsADirectory"):
            call("units/x")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Such as FAT and exFAT, and many of those that mount a bucket."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    store = ObjectStore(str(tmp_path))
    (tmp_path / "source").write_bytes(b"x")
    for write in (
        lambda: store.create("versions/x", b"x"),
        lambda: store.claim("versions/x", b"x"),
        lambda: store.create_from_file("versions/x", tmp_path / "source"),
    ):
        with pytest.raises(StorageError, match=rf"file://{tmp_path}: its file system has no hard links .*s3://"):
            write()
    assert list((tmp_path / "versions").iterdir()) == []


def test_a_file_in_the_place_of_the_root_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*root/a/b"):
        ObjectStore(str(tmp_path / "root")).create("a/b", b"x")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user without special rights, also when the tests run as root, who may do everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_without_permission_is_named() -> None:
    # Not below pytest's own folder, which only its owner can enter.
    with tempfile.TemporaryDirectory() as folder:
        objects = ObjectStore(folder)
        objects.create("a/there", b"x")
        Path(folder, "a", "there").chmod(0o000)
        Path(folder, "a").chmod(0o555)
        Path(folder, "closed").mkdir(mode=0o000)
        Path(folder).chmod(0o555)
        calls = {
            "write": [lambda: objects.create("a/new", b"x"), lambda: objects.put("b/new", b"x")],
            "read": [lambda: objects.read("a/there"), lambda: objects.size("closed/x")],
            "list": [lambda: objects.list("closed")],
            "delete": [lambda: objects.delete("a/there")],
        }
        try:
            for action, attempts in calls.items():
                for attempt in attempts:
                    with as_nobody(), pytest.raises(StorageError, match=f"cannot {action} .*: permission denied"):
                        attempt()
        finally:
            for path in (folder, f"{folder}/a", f"{folder}/closed"):
                Path(path).chmod(0o755)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://host/x", "nonsense://x", "zip://x::s3://bucket/x.zip"])
def test_a_store_without_proven_create_only_writes_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match=r"use s3://, file:// or memory://"):
        ObjectStore(uri)
