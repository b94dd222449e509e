"""Random histories of publishers, promoters, readers, retirements and sweeps, with crashes and clocks that are wrong.

The model knows what was attempted and what was reported as done. After each step the store must be one that such a
history can lead to: nothing that was reported as done is lost, nothing appears that nobody attempted, every version
that can be opened is whole, and readers keep what they opened for a grace period.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import CorruptBlobError, MemoragError, NotFoundError, RetiredVersionError, StorageError
from memorag_pipeline.storage import CorpusStore, Manifest, Outcome
from memorag_pipeline.storage.garbage import references
from memorag_pipeline.storage.garbage import sweep as sweep_module
from memorag_pipeline.storage.garbage.sweep import GRACE, sweep
from memorag_pipeline.storage.verify import verify
from tests.storage.conftest import manifest_of
from tests.storage.faults import WRITES, Crash, FaultyBackend, StoreClock, open_faulty

TEXTS = st.sampled_from([b"red", b"green", b"blue"])  # few, so that histories come back to what they had
CHANNELS = st.sampled_from(["production", "staging"])
LONGEST_RUN = timedelta(days=4)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which operation of an action; `meanwhile` lets another action happen there."""

    kind: str
    number: int


FAULTS = st.one_of(
    st.just(Fault("none", 0)),
    st.builds(
        Fault,
        st.sampled_from(["crash before", "crash after", "lost answer", "error", "sweep", "publish", "retire"]),
        st.integers(0, 60),
    ),
)


@dataclass
class Run:
    """A refresh: what it found when it began, and what it wants to publish.

    `used` is when it last had its blobs, `fresh` are those that its base does not have.
    """

    run_id: str
    base: int | None
    manifest: Manifest
    text: bytes
    used: datetime
    fresh: frozenset[str]


@dataclass
class Model:
    """What is known to have happened."""

    versions: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    retired: dict[int, datetime] = field(default_factory=dict)
    moves: dict[str, list[int]] = field(default_factory=dict)
    readers: list[tuple[int, Manifest]] = field(default_factory=list)
    attempted: list[tuple[bytes, str]] = field(default_factory=list)


class Histories(RuleBasedStateMachine):
    """Steps in memory; `HistoriesOnFiles` takes the same in a folder."""

    on_files: ClassVar[bool] = False

    @initialize(skew=st.sampled_from([timedelta(days=-1), timedelta(0), timedelta(days=1)]))
    def begin(self, skew: timedelta) -> None:
        self.folder = Path(tempfile.mkdtemp())
        place = str(self.folder) if self.on_files else f"memory://{uuid.uuid4().hex}"
        self.root: tuple[str, dict[str, Any]] = (f"{place}/topics", {})
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda handle: None)  # it is the process that crashes, not the machine
        self.patch.setenv("MEMORAG_CACHE", str(self.folder / "cache"))
        # A request that has begun ends at once: none may hang while another process waits for ten minutes.
        for module in (sweep_module, references):
            self.patch.setattr(module, "in_threads", lambda call, items: [call(item) for item in items])
        self.clock = StoreClock()
        self.clock.rule(self.patch, skew)
        self.store, _ = open_faulty(self.root, self.clock)
        self.model, self.runs, self.count = Model(), list[Run](), 0

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            for _ in range(6):
                self.clock.advance(GRACE + timedelta(hours=1))
                sweep(self.store)
            self.agrees()
            referred = set()
            for number in self.store.versions.retained():
                manifest = self.store.versions.manifest(number)
                referred |= {self.store.versions.record(number).manifest.key, *(b.ref.key for b in manifest.blobs)}
            assert set(self.store.objects.list("blobs")) == referred
            for folder in ("intents", "deleting", "condemned"):
                assert self.store.objects.list(folder) == []
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)
            if not self.on_files:
                MemoryFileSystem().rm(self.root[0], recursive=True) if MemoryFileSystem().exists(self.root[0]) else None

    # What people and runs do

    @rule(text=TEXTS)
    def begin_run(self, text: bytes) -> None:
        self.runs.append(self._new_run(text))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), fault=FAULTS)
    def publish(self, data: st.DataObject, fault: Fault) -> None:
        """A run publishes, for the first time or again after a fault; it may do so again even after a success."""
        run = data.draw(st.sampled_from(self.runs), label="run")
        self._attempt(lambda store: self._publish(store, run), fault)

    @rule(channel=CHANNELS, data=st.data(), fault=FAULTS)
    def promote(self, channel: str, data: st.DataObject, fault: Fault) -> None:
        version = data.draw(st.integers(1, len(self.model.versions) + 1), label="version")
        self._attempt(lambda store: self._promote(store, channel, version), fault)

    @rule(channel=CHANNELS, fault=FAULTS)
    def rollback(self, channel: str, fault: Fault) -> None:
        def roll_back(store: CorpusStore) -> None:
            with suppress(RetiredVersionError, NotFoundError):
                self.model.moves.setdefault(channel, []).append(store.channels.rollback(channel, "ann", "bad").version)

        self._attempt(roll_back, fault)

    @precondition(lambda self: self.model.versions)
    @rule(data=st.data(), fault=FAULTS)
    def retire(self, data: st.DataObject, fault: Fault) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.versions)), label="version")
        self._attempt(lambda store: self._retire(store, number), fault)

    @rule(fault=FAULTS)
    def sweep(self, fault: Fault) -> None:
        def clean(store: CorpusStore) -> None:
            try:
                sweep(store)
            except StorageError as error:
                if "too slow" not in str(error):
                    raise

        self._attempt(clean, fault)

    @precondition(lambda self: self.store.versions.retained())
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.store.versions.retained()), label="version")
        self.model.readers.append((number, self.store.versions.manifest(number)))

    @rule(hours=st.sampled_from([1, 20, 70, 170, 200]))
    def wait(self, hours: int) -> None:
        self.clock.advance(timedelta(hours=hours))

    # What must hold

    @invariant()
    def agrees(self) -> None:
        store, model = self.store, self.model
        numbers = list(store.versions.numbers())
        assert numbers == list(range(1, len(numbers) + 1))
        retained, tombstones = store.versions.retained(), dict(store.versions.tombstones())
        for number in numbers:
            record = store.versions.record(number)
            assert record.parent == (number - 1 or None)
            if number not in model.versions:
                (text,) = (text for text, run_id in model.attempted if run_id == record.run_id)
                model.versions[number] = (text, record.run_id)
            assert record.run_id == model.versions[number][1]
        assert model.versions.keys() == set(numbers)
        for number in retained:
            assert verify(store, number) == []
            documents = store.versions.manifest(number).of_role("documents")
            assert store.blobs.get_bytes(documents[0].ref) == model.versions[number][0]
        for number, tombstone in tombstones.items():
            model.retired.setdefault(number, tombstone.modified)
            if number in retained:  # a channel points to it still
                model.retired[number] = self.clock.now
        assert model.retired.keys() == tombstones.keys()
        targets = store.channels.targets()
        assert set(retained) == set(numbers) - (tombstones.keys() - set(targets.values()))
        for channel, moves in model.moves.items():
            told = iter(record.version for record in store.channels.history(channel))
            assert all(version in told for version in moves)  # in this order
        left = {number for number, at in model.retired.items() if self.clock.now - at >= GRACE - timedelta(minutes=20)}
        model.readers = [reader for reader in model.readers if reader[0] in retained or reader[0] not in left]
        for _, manifest in model.readers:
            assert store.versions.missing(manifest) == []

    # How it is done

    def _new_run(self, text: bytes) -> Run:
        self.count += 1
        manifest = manifest_of(self.store, documents=text, index=b"index of " + text)
        outcome = self.store.units.find("memorize", bytes_digest(text))
        if outcome is None:
            memory = self.store.blobs.put_bytes(b"memory of " + text)
            outcome = self.store.units.record(
                Outcome(stage="memorize", fingerprint=bytes_digest(text), blobs={"memory": memory})
            )
        ref = outcome.blobs["memory"]
        blob = manifest.blobs[0].model_copy(
            update={"role": "memory", "path": "memory", "digest": ref.digest, "size": ref.size}
        )
        manifest = manifest.model_copy(update={"blobs": (*manifest.blobs, blob)})
        base = self.store.versions.newest()
        held = () if base is None else self.store.versions.manifest(base).blobs
        fresh = {blob.digest for blob in manifest.blobs} - {blob.digest for blob in held}
        run = Run(f"run-{self.count}", base, manifest, text, self.clock.now, frozenset(fresh))
        self.model.attempted.append((text, run.run_id))
        return run

    def _publish(self, store: CorpusStore, run: Run) -> None:
        newest, before = store.versions.newest(), store.versions.retained()
        mine = [n for n in before if store.versions.record(n).run_id == run.run_id and n > (run.base or 0)]
        try:
            published = store.versions.publish(run.manifest, run.run_id, run.base, run.fresh)
        except CorruptBlobError as error:
            assert "not published" in str(error)
            assert self.clock.now - run.used > LONGEST_RUN
            return
        run.used = self.clock.now
        record = store.versions.record(published.version)
        documents = store.versions.manifest_of(record).of_role("documents")
        assert documents == run.manifest.of_role("documents")
        same = newest is not None and store.versions.manifest_of(store.versions.record(newest)).content_digest()
        if same == run.manifest.content_digest():
            # Somebody may have published or retired after our look: then the run's own version is the right one, too.
            overtaken = store.versions.newest() != newest and published.version in mine
            assert published.version >= (newest or 0) or overtaken
        elif mine:
            assert (published.version, published.created) == (mine[-1], False)

    def _promote(self, store: CorpusStore, channel: str, version: int) -> None:
        try:
            store.channels.promote(channel, version, "ann", "good")
        except NotFoundError:
            assert version > len(self.model.versions) or version in dict(store.versions.tombstones())
        else:
            self.model.moves.setdefault(channel, []).append(version)

    def _retire(self, store: CorpusStore, number: int) -> None:
        try:
            store.versions.retire(number, "ann", "old")
        except StorageError as error:
            if "points to it" not in str(error):
                raise
            assert number in store.channels.targets().values()
        else:
            assert number in dict(store.versions.tombstones())

    def _attempt(self, action: Callable[[CorpusStore], None], fault: Fault) -> None:
        store, backend = open_faulty(self.root, self.clock)
        reached = self._arm(backend, fault)
        try:
            action(store)
        except Crash:
            assert fault.kind.startswith("crash")
        except MemoragError as error:
            assert fault.kind == "error" and reached and "slow down" in str(error)
        else:
            assert not reached or fault.kind != "crash before"

    def _arm(self, backend: FaultyBackend, fault: Fault) -> list[str]:
        """Let `fault` happen at its operation; the list that is returned is empty until then."""
        seen, reached = 0, list[str]()

        def act() -> None:
            if fault.kind.startswith("crash"):
                raise Crash
            if fault.kind == "lost answer":
                raise ConnectionResetError("connection reset by peer")
            if fault.kind == "error":
                raise OSError("503 slow down")
            self._meanwhile(fault)

        def hook(operation: str, key: str) -> None:
            nonlocal seen
            if reached or (fault.kind == "lost answer" and operation not in WRITES):
                return
            if seen == fault.number:
                reached.append(key)
                act()
            seen += 1

        if fault.kind != "none":
            setattr(backend, "before" if fault.kind in ("crash before", "error") else "after", hook)
        return reached

    def _meanwhile(self, fault: Fault) -> None:
        """What another process does between two operations of this one."""
        other, _ = open_faulty(self.root, self.clock)
        if fault.kind == "sweep":
            sweep(other)
        elif fault.kind == "publish":
            self._publish(other, self._new_run((b"red", b"green", b"blue")[fault.number % 3]))
        elif numbers := list(other.versions.numbers()):
            self._retire(other, numbers[fault.number % len(numbers)])


class HistoriesOnFiles(Histories):
    """The same steps in a folder."""

    on_files = True


def _run(machine: type[Histories], examples: int, steps: int) -> type[Any]:
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return case


TestHistories = _run(Histories, 100, 30)
TestHistoriesOnFiles = _run(HistoriesOnFiles, 30, 30)


@pytest.mark.long
class TestLongHistories(_run(type("LongHistories", (Histories,), {}), 1500, 60)):  # type: ignore[misc]
    """The same for half an hour."""


@pytest.mark.long
class TestLongHistoriesOnFiles(_run(type("LongHistoriesOnFiles", (HistoriesOnFiles,), {}), 300, 60)):  # type: ignore[misc]
    """The same on files."""
