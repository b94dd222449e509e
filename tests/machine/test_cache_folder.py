"""A cache folder that is gone, full, a file, or another user's: done without, or one error that names it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import DiskFullError, MemoragError, StorageError
from memorag_pipeline.machine.cache_folder import cache_folder, own_folder
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.backends import local
from memorag_pipeline.storage.cache import LocalCache
from memorag_pipeline.storage.objects import ObjectStore

NOBODY = 65534
DATA = b"blob" * 250
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")


def fetch(cache: LocalCache, data: bytes = DATA) -> Path:
    return cache.fetch(bytes_digest(data), len(data), lambda target: (target.write_bytes(data), None)[1])


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache folder, on a way that every user may go."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("MEMORAG_CACHE", f"{folder}/cache")
        yield Path(folder, "cache")


def as_nobody(work: Callable[[], object]) -> str:
    """What `work` returns, or the MemoragError that it raises, in a process of another user."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            told = str(work())
        except MemoragError as error:
            told = f"{type(error).__name__}: {error}"
        except BaseException as error:
            told = f"raw {error!r}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = file.read()
    os.waitpid(process, 0)
    return told


@as_root
def test_beside_the_folder_of_another_user_each_has_an_own(root: Path) -> None:
    root.mkdir()
    root.chmod(0o1777)
    assert fetch(LocalCache()).is_relative_to(root / "blobs")
    cache = LocalCache()
    told = as_nobody(lambda: (fetch(cache), fetch(cache).read_bytes() == DATA))
    assert f"{root}/blobs-{NOBODY}/leases/" in told and told.endswith("True)")
    assert as_nobody(lambda: own_folder("models")) == f"{root}/models"  # the first to need it
    assert own_folder("models") == root / "models-0"


@as_root
def test_a_cache_that_only_another_user_can_write_is_told(root: Path) -> None:
    root.mkdir(mode=0o755)
    told = as_nobody(lambda: fetch(LocalCache()))
    assert told.startswith(f"StorageError: the cache folder {root} cannot be used by user {NOBODY}")
    assert "set MEMORAG_CACHE to a folder of your own" in told
    root.chmod(0o700)
    assert as_nobody(lambda: fetch(LocalCache())).startswith(f"StorageError: the cache folder {root} cannot be used")


@as_root
def test_a_model_that_another_user_has_converted_is_used(root: Path) -> None:
    from memorag_pipeline.models import model_cache

    (root / "models" / "one").mkdir(parents=True)

    def refuse(folder: Path) -> None:
        raise AssertionError("made again")

    assert as_nobody(lambda: model_cache.made_once(model_cache.model_folder("one"), refuse)) == f"{root}/models/one"
    root.chmod(0o1777)
    made = as_nobody(lambda: model_cache.made_once(model_cache.model_folder("two"), lambda folder: None))
    assert made == f"{root}/models-{NOBODY}/two"
    assert as_nobody(lambda: model_cache.model_folder("two")) == made


@pytest.mark.parametrize("place", ["", "blobs", "parent"])
def test_a_file_in_the_place_of_a_folder_is_named(root: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = root if place != "blobs" else root / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    if place == "parent":
        monkeypatch.setenv("MEMORAG_CACHE", str(root / "cache"))
    with pytest.raises(StorageError, match=f"{file}.* is in the way and no folder; remove it, or set MEMORAG_CACHE"):
        fetch(LocalCache())


def test_a_cache_is_made_again_when_it_was_deleted(root: Path) -> None:
    cache = LocalCache()
    first = fetch(cache)
    with first.open("rb") as file:
        shutil.rmtree(root)
        assert file.read() == DATA
    assert fetch(cache).read_bytes() == DATA
    assert fetch(cache, b"other").read_bytes() == b"other"


def test_a_cache_that_is_deleted_during_a_fetch_is_made_again(tmp_path: Path, root: Path) -> None:
    store = ObjectStore(str(tmp_path))
    store.create("key", DATA)
    deleted: list[bool] = []

    def get(target: Path) -> None:
        if not deleted:
            deleted.append(True)
            shutil.rmtree(root)
        store.download("key", target, len(DATA) + 1)

    assert LocalCache().fetch(bytes_digest(DATA), len(DATA), get).read_bytes() == DATA


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMORAG_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: _raise(RuntimeError("no home"))))
    with pytest.raises(StorageError, match="has no home; set MEMORAG_CACHE"):
        cache_folder()


def _raise(error: Exception) -> Any:
    raise error


def full(*_: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_cache_is_named_and_not_the_store(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(str(tmp_path))
    store.create("key", DATA)
    monkeypatch.setattr(local.LocalObjects, "download", full)

    def get(target: Path) -> None:
        store.download("key", target, len(DATA) + 1)

    with pytest.raises(DiskFullError, match=rf"no space left on the disk of {root}/blobs/\w\w; make room there"):
        LocalCache().fetch(bytes_digest(DATA), len(DATA), get)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DiskFullError, match=rf"disk of {root}; make room there, lower MEMORAG_CACHE_GB, or set"):
        fetch(LocalCache())


def test_what_nobody_uses_makes_room_on_a_full_disk(root: Path) -> None:
    fetch(LocalCache(), b"unused")
    user = LocalCache()
    used = fetch(user, b"used")
    tries: list[Path] = []

    def get(target: Path) -> None:
        tries.append(target)
        if (root / "blobs").joinpath(bytes_digest(b"unused")[:2], bytes_digest(b"unused")).exists():
            full()
        target.write_bytes(DATA)

    assert user.fetch(bytes_digest(DATA), len(DATA), get).read_bytes() == DATA
    assert len(tries) == 2
    assert used.read_bytes() == b"used"
    assert [path for path in root.glob("blobs/??/.part-*")] == []


def test_a_full_disk_of_a_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CorpusStore(str(tmp_path / "store"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DiskFullError, match=rf"no space left on the disk of {tmp_path}/store; make room there, and try"
    ):
        store.blobs.put_bytes(DATA)


def test_a_forked_process_has_a_lease_and_locks_of_its_own(root: Path) -> None:
    cache = LocalCache()
    path = fetch(cache)
    held = threading.Event()
    released = threading.Event()

    def hold() -> None:
        with cache._used.lock:
            held.set()
            released.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    process = os.fork()
    if process == 0:
        found = fetch(cache)
        fine = found != path and found.read_bytes() == DATA and fetch(cache, b"other").read_bytes() == b"other"
        os._exit(0 if fine else 1)
    try:
        assert os.waitpid(process, 0)[1] == 0
    finally:
        released.set()
        thread.join()
    assert fetch(cache) == path and path.read_bytes() == DATA
