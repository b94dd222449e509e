"""The local cache: bounded, shared by processes, and never evicting a file in use."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import StorageError
from memorag_pipeline.storage.cache import LocalCache, cache_limit

SIZE = 1000


def blob(number: int) -> bytes:
    return b"%04d" % number * (SIZE // 4)


NUMBERS = {bytes_digest(blob(number)): number for number in range(100)}


def fetch(cache: LocalCache, number: int, fetched: list[int] | None = None) -> Path:
    """Blob `number` from the cache; `fetched` learns which were not there."""

    def get(target: Path) -> None:
        if fetched is not None:
            fetched.append(number)
        target.write_bytes(blob(number))

    return cache.fetch(bytes_digest(blob(number)), SIZE, get)


def cached(folder: Path) -> set[int]:
    """The blobs that the folder holds for all."""
    # By name: reading a file would count as using it.
    return {NUMBERS[path.name] for path in folder.glob("??/*") if not path.name.startswith(".part-")}


def test_a_blob_is_fetched_once_for_all(tmp_path: Path) -> None:
    fetched: list[int] = []
    first, second = LocalCache(tmp_path), LocalCache(tmp_path)
    for cache in (first, first, second):
        assert fetch(cache, 1, fetched).read_bytes() == blob(1)
    assert fetched == [1]
    assert fetch(first, 1).stat().st_ino == fetch(second, 1).stat().st_ino


def test_the_least_recently_used_go_first_and_the_bound_holds(tmp_path: Path) -> None:
    limit = 20 * SIZE
    fetched: list[int] = []
    for number in range(20):
        fetch(LocalCache(tmp_path, limit), number)  # used, and let go
    fetch(LocalCache(tmp_path, limit), 0, fetched)
    assert fetched == []
    for number in range(20, 25):
        fetch(LocalCache(tmp_path, limit), number)
        assert len(cached(tmp_path)) <= 20
    assert 0 in cached(tmp_path)
    assert {20, 21, 22, 23, 24} <= cached(tmp_path)
    assert not {1, 2, 3, 4, 5} & cached(tmp_path)


def test_one_cache_keeps_the_bound_for_what_others_used(tmp_path: Path) -> None:
    """A process that fetches without end looks at the folder again and again, not once."""
    limit = 40 * SIZE
    for number in range(40):
        fetch(LocalCache(tmp_path, limit), number)
    cache = LocalCache(tmp_path, limit)
    for number in range(40, 70):
        fetch(cache, number)
        assert len(cached(tmp_path)) <= 40 * 1.05


def test_what_is_in_use_is_never_evicted(tmp_path: Path) -> None:
    limit = 5 * SIZE
    holder = LocalCache(tmp_path, limit)
    held = [fetch(holder, number) for number in range(10)]  # more than the limit, all of them in use
    for number in range(10, 30):
        fetch(LocalCache(tmp_path, limit), number)
    assert [path.read_bytes() for path in held] == [blob(number) for number in range(10)]
    assert set(range(10)) <= cached(tmp_path)
    del holder
    gc.collect()
    fetch(LocalCache(tmp_path, limit), 30)
    assert len(cached(tmp_path)) <= 5


def test_a_file_that_is_mapped_stays_readable_when_its_cache_is_gone(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, SIZE)
    with fetch(cache, 1).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    del cache
    gc.collect()
    fetch(LocalCache(tmp_path, SIZE), 2)
    assert cached(tmp_path) == {2}
    assert mapped[:] == blob(1)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from tests.storage.test_cache import fetch, SIZE\n"
        "from memorag_pipeline.storage.cache import LocalCache\n"
        "cache = LocalCache(Path(sys.argv[1]), 2 * SIZE)\n"
        "fetch(cache, 1)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for number in (2, 3, 4):
        fetch(LocalCache(tmp_path, 2 * SIZE), number)
        assert 1 in cached(tmp_path)
    process.kill()
    process.communicate()
    fetch(LocalCache(tmp_path, 2 * SIZE), 5)
    assert 1 not in cached(tmp_path)
    gc.collect()
    assert list((tmp_path / "leases").iterdir()) == []


def test_half_a_file_of_a_killed_process_goes_after_a_day(tmp_path: Path) -> None:
    fetch(LocalCache(tmp_path), 1)
    old, new = tmp_path / "00" / ".part-old", tmp_path / "00" / ".part-new"
    old.parent.mkdir(exist_ok=True)
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    fetch(LocalCache(tmp_path), 2)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("damage", ["cut short", "altered", "empty"])
@pytest.mark.parametrize("same", [True, False])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: str, same: bool) -> None:
    cache = LocalCache(tmp_path)
    path = fetch(cache, 1)
    path.chmod(0o644)
    path.write_bytes({"cut short": blob(1)[:-1], "altered": blob(1)[:-1] + b"x", "empty": b""}[damage])
    fetched: list[int] = []
    user = cache if same else LocalCache(tmp_path)
    assert fetch(user, 1, fetched).read_bytes() == blob(1)
    assert fetched == [1]
    third = LocalCache(tmp_path)
    assert fetch(third, 1, fetched).read_bytes() == blob(1)
    assert fetched == [1]


def _use(folder: Path, seed: int, gate: Any, done: Any) -> None:
    gate.wait()
    for turn in range(40):
        cache = LocalCache(folder, 6 * SIZE)
        for number in ((seed * 7 + turn) % 12, (seed * 5 + turn * 3) % 12):
            assert fetch(cache, number).read_bytes() == blob(number)
    done.put(seed)


def test_processes_that_fetch_and_evict_at_once_never_lose_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, done = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_use, args=(tmp_path, seed, gate, done)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(done.get(timeout=5) for _ in processes) == [0, 1, 2]
    assert len(cached(tmp_path)) <= 12


@pytest.mark.parametrize("value", ["lots", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE_GB", value)
    with pytest.raises(StorageError, match=f"MEMORAG_CACHE_GB is '{value}'; set it to a number of gigabytes"):
        cache_limit()


def test_the_limit_is_set_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE_GB", "0.5")
    assert cache_limit() == 500_000_000
    monkeypatch.delenv("MEMORAG_CACHE_GB")
    assert cache_limit() == 50_000_000_000


def test_a_forked_process_leaves_the_files_of_its_parent(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path)
    path = fetch(cache, 1)

    def child() -> None:
        nonlocal cache
        del cache
        gc.collect()

    _in_fork(child)
    assert path.read_bytes() == blob(1)


def _in_fork(work: Callable[[], None]) -> None:
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
