"""A crash, an error or a lost answer at every single storage operation of publish, promote, rollback, retire, sweep."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.storage import BlobRef, CorpusStore, Outcome
from memorag_pipeline.storage.garbage.sweep import GRACE, sweep
from memorag_pipeline.storage.verify import verify
from tests.storage.conftest import Root, manifest_of
from tests.storage.faults import WRITES, Crash, FaultyBackend, StoreClock, open_faulty

NewRoot = Callable[[], Root]


STEPS = {"memory": 3, "file": 5, "memory, all": 1, "file, all": 1}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.long if "all" in name else ()) for name in STEPS])
def step(request: pytest.FixtureRequest) -> int:
    """Every how many operations something happens; each in the long run."""
    return STEPS[request.param]


@pytest.fixture
def new_root(
    step: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewRoot]:
    """Empty roots, as many as are asked for."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it is the process that crashes here, not the machine
    in_memory = request.node.callspec.params["step"].startswith("memory")
    place = f"memory://{uuid.uuid4().hex}" if in_memory else str(tmp_path / "roots")
    yield lambda: (f"{place}/{uuid.uuid4().hex}/topics", {})
    if in_memory:  # each listing goes through all there is
        MemoryFileSystem().rm(place, recursive=True)


def work(store: CorpusStore, text: bytes, folder: Path) -> int:
    """What a run does: blobs from bytes and from a file, a unit's record, a work list, and a version of it all."""
    (folder / "memory").write_bytes(b"memory of " + text)
    found = store.units.find("memorize", bytes_digest(text))
    if found is None:
        memory = store.blobs.put_file(folder / "memory")
        found = store.units.record(Outcome(stage="memorize", fingerprint=bytes_digest(text), blobs={"memory": memory}))
    store.blobs.put_json({"plan": text.decode()})
    manifest = manifest_of(store, documents=text, index=b"an index that all versions share")
    ref = found.blobs["memory"]
    blob = manifest.blobs[0].model_copy(
        update={"role": "memory", "path": "memory", "digest": ref.digest, "size": ref.size}
    )
    manifest = manifest.model_copy(update={"blobs": (*manifest.blobs, blob)})
    return store.versions.publish(manifest, f"run-{text.decode()}").version


class Prepared:
    """A store with versions 1 to 3: 1 is retired, production went from 2 to 3, a sweep has condemned something."""

    def __init__(self, root: Root, folder: Path) -> None:
        self.root, self.folder, self.clock = root, folder, StoreClock()
        store, _ = open_faulty(root, self.clock)
        for text in (b"one", b"two", b"three"):
            work(store, text, folder)
        store.channels.promote("production", 2, "ann", "first")
        store.channels.promote("production", 3, "ann", "better")
        store.versions.retire(1, "ann", "old")
        self.clock.advance(GRACE + timedelta(hours=1))
        sweep(store)
        self.clock.advance(GRACE + timedelta(hours=1))

    def copy(self, root: Root) -> StoreClock:
        """The same at another root, with the same ages."""
        here, there = open_faulty(self.root)[1], open_faulty(root)[1]
        clock = StoreClock(self.clock.now)
        for stored in here.listing(here.root):
            path = there.root + stored.key.removeprefix(here.root)
            there.put(path, here.read(stored.key, stored.size))
            clock.modified[path] = self.clock.modified[stored.key]
        return clock


def prepare(new_root: NewRoot, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    StoreClock().rule(monkeypatch)
    return Prepared(new_root(), folder)


@dataclass(frozen=True)
class Action:
    """Something that is done to a prepared store; `result` is what it must have led to, whatever happened."""

    do: Callable[[CorpusStore, Path], Any]
    result: Callable[[CorpusStore], Any]


def _contents(store: CorpusStore) -> list[list[str]]:
    """What is in each retained version, in order: the texts of its documents."""
    versions = [store.versions.manifest(number) for number in store.versions.retained()]
    return [[store.blobs.get_bytes(blob.ref).decode() for blob in m.of_role("documents")] for m in versions]


ACTIONS = {
    "publish": Action(lambda store, folder: work(store, b"four", folder), _contents),
    "promote": Action(
        lambda store, folder: store.channels.promote("production", 2, "ann", "try").version,
        lambda store: store.channels.version("production"),
    ),
    "rollback": Action(
        lambda store, folder: store.channels.rollback("production", "ann", "bad").version,
        lambda store: store.channels.version("production"),
    ),
    "retire": Action(
        lambda store, folder: store.versions.retire(2, "ann", "old").version, lambda store: store.versions.retained()
    ),
    "sweep": Action(lambda store, folder: len(sweep(store).deleted), lambda store: sorted(store.objects.list("blobs"))),
}


def undisturbed(prepared: Prepared, root: Root, action: Action) -> tuple[list[tuple[str, str]], Any, Any]:
    """The operations of an action without any fault, what it returns, and what it leads to."""
    store, backend = open_faulty(root, prepared.copy(root))
    operations: list[tuple[str, str]] = []
    backend.after = lambda operation, key: operations.append((operation, key.partition("/")[0]))
    returned = action.do(store, prepared.folder)
    backend.after = lambda operation, key: None
    return operations, returned, action.result(store)


def at(number: int, act: Callable[[], object], writes_only: bool = False) -> Callable[[str, str], None]:
    """A hook that acts at one of the operations, counted from 0."""
    seen = -1

    def hook(operation: str, key: str) -> None:
        nonlocal seen
        seen += operation in WRITES or not writes_only
        if seen == number:
            seen += 1 << 30
            act()

    return hook


def fail(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def readers_see_whole_versions(root: Root, clock: StoreClock) -> None:
    store, _ = open_faulty(root, clock)
    for number in store.versions.retained():
        assert verify(store, number) == []
    for channel in store.channels.names():
        assert verify(store, store.channels.version(channel)) == []


def nothing_is_left_over(root: Root, clock: StoreClock) -> None:
    """After enough sweeps the store holds the blobs of its versions, and no record of anything under way."""
    store, _ = open_faulty(root, clock)
    for _ in range(6):
        clock.advance(GRACE + timedelta(hours=1))
        sweep(store)
    referred: set[BlobRef] = set()
    for number in store.versions.retained():
        referred |= {store.versions.record(number).manifest, *(b.ref for b in store.versions.manifest(number).blobs)}
    assert set(store.objects.list("blobs")) == {ref.key for ref in referred}
    for folder in ("intents", "deleting", "condemned"):
        assert store.objects.list(folder) == []
    for key in store.objects.list("units"):
        assert all(
            store.blobs.exists(ref) for ref in Outcome.model_validate_json(store.objects.read(key)).blobs.values()
        )


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_crash_at_any_operation_breaks_nothing_and_a_retry_completes_it(
    name: str, side: str, step: int, new_root: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = ACTIONS[name]
    prepared = prepare(new_root, tmp_path, monkeypatch)
    operations, _, led_to = undisturbed(prepared, new_root(), action)
    assert len(operations) >= 5
    for number in range(0, len(operations), 1 if name == "publish" else step):
        root = new_root()
        clock = prepared.copy(root)
        clock.rule(monkeypatch)
        store, backend = open_faulty(root, clock)
        setattr(backend, side, at(number, fail(Crash())))
        with pytest.raises(Crash):
            action.do(store, tmp_path)
        readers_see_whole_versions(root, clock)
        again, _ = open_faulty(root, clock)
        if name == "rollback" and again.channels.version("production") == led_to:
            pass  # it was done; a person who looks before trying again sees that
        else:
            action.do(again, tmp_path)
        assert action.result(again) == led_to, operations[number]
        readers_see_whole_versions(root, clock)
        nothing_is_left_over(root, clock)


@pytest.mark.parametrize("name", ACTIONS)
def test_the_answer_to_any_write_may_be_lost(
    name: str, step: int, new_root: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is done and the client sees a broken connection: the action continues as if nothing had happened."""
    action = ACTIONS[name]
    prepared = prepare(new_root, tmp_path, monkeypatch)
    operations, returned, led_to = undisturbed(prepared, new_root(), action)
    writes = [operation for operation in operations if operation[0] in WRITES]
    assert writes
    for number in range(0, len(writes), step):
        root = new_root()
        clock = prepared.copy(root)
        clock.rule(monkeypatch)
        store, backend = open_faulty(root, clock)
        backend.after = at(number, fail(ConnectionResetError("connection reset by peer")), writes_only=True)
        assert action.do(store, tmp_path) == returned, writes[number]
        assert action.result(store) == led_to, writes[number]
        readers_see_whole_versions(root, clock)
        nothing_is_left_over(root, clock)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_operation_that_fails_breaks_nothing_and_a_retry_completes_it(
    name: str, step: int, new_root: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = ACTIONS[name]
    prepared = prepare(new_root, tmp_path, monkeypatch)
    operations, _, led_to = undisturbed(prepared, new_root(), action)
    for number in range(0, len(operations), step):
        root = new_root()
        clock = prepared.copy(root)
        clock.rule(monkeypatch)
        store, backend = open_faulty(root, clock)
        backend.before = at(number, fail(OSError("503 slow down")))
        try:
            action.do(store, tmp_path)
        except MemoragError as error:
            assert "503 slow down" in str(error)
            readers_see_whole_versions(root, clock)
            if name != "rollback" or store.channels.version("production") != led_to:
                action.do(store, tmp_path)
        assert action.result(store) == led_to, operations[number]
        readers_see_whole_versions(root, clock)
        nothing_is_left_over(root, clock)


@pytest.mark.parametrize("step", ["memory", "file"], indirect=True)
def test_a_version_that_lost_a_blob_during_its_commit_is_retired_at_once(new_root: NewRoot, tmp_path: Path) -> None:
    """For example, somebody deleted it by hand. Readers continue with the version before."""
    root = new_root()
    clock = Prepared(root, tmp_path).clock
    store, backend = open_faulty(root, clock)
    manifest = manifest_of(store, documents=b"four")

    def remove(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("versions/"):
            FaultyBackend.delete(backend, f"{backend.root}/{manifest.blobs[0].ref.key}")

    backend.before = remove
    with pytest.raises(MemoragError, match="version 4 was published damaged and is retired: 1 blobs"):
        store.versions.publish(manifest, "run")
    backend.before = lambda operation, key: None
    assert store.versions.newest() == 3
    assert "refresh again" in store.versions.retired()[4].why
    assert store.objects.list("intents") == []
    assert store.versions.publish(manifest_of(store, documents=b"four"), "run").version == 5
