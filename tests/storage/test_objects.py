"""What an object store does on one backend or another: processes that race, folders and files in the wrong place."""

from __future__ import annotations

import errno
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import StorageError
from memorag_pipeline.storage import ObjectStore
from tests.storage.conftest import Root, races


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


def test_a_lost_upload_in_parts_leaves_nothing_behind(s3_store: Root, tmp_path: Path) -> None:
    objects, source = ObjectStore(*s3_store), tmp_path / "source"
    source.write_bytes(b"x" * 40_000_000)
    assert objects.create("blobs/x", b"first")
    assert not objects.create_from_file("blobs/x", source)
    assert objects.read("blobs/x") == b"first"
    s3 = objects._backend._fs  # type: ignore[attr-defined]
    assert not s3.call_s3("list_multipart_uploads", Bucket=s3_store[0].removeprefix("s3://")).get("Uploads")


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """The temporary file of a local writer is not listed and does not block others."""
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
    with pytest.raises(StorageError, match=r"use s3://, s3a://, file://, local:// or memory://"):
        ObjectStore(uri)
