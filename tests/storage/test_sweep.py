"""The sweep: what it deletes, when, and what it keeps. The store's clock is the test's; the bytes are real."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import s3fs

from memorag_pipeline.errors import CorruptBlobError, RetiredVersionError, StorageError
from memorag_pipeline.machine.threads import LOOKUPS
from memorag_pipeline.storage import BlobRef, CorpusStore, Outcome
from memorag_pipeline.storage.deletions import PASS
from memorag_pipeline.storage.garbage.sweep import GRACE, SweepReport, sweep
from memorag_pipeline.storage.intents import LIFETIME, Intent
from memorag_pipeline.storage.verify import verify
from tests.storage.conftest import Root, manifest_of
from tests.storage.faults import Crash, FaultyBackend, StoreClock, open_faulty

DAY = timedelta(days=1)


class Swept:
    """A store with a separate clock."""

    def __init__(self, root: Root) -> None:
        self.root, self.clock = root, StoreClock()
        self.store, self.backend = self.open()

    def open(self) -> tuple[CorpusStore, FaultyBackend]:
        return open_faulty(self.root, self.clock)

    def publish(self, text: bytes, run_id: str = "run") -> int:
        return self.store.versions.publish(manifest_of(self.store, documents=text), run_id).version

    def sweep(self, after: timedelta = timedelta(0)) -> SweepReport:
        self.clock.advance(after)
        return sweep(self.store)

    def keys(self, report: SweepReport) -> set[str]:
        return {swept.key for swept in report.deleted}

    def blob(self, text: bytes) -> BlobRef:
        return self.store.blobs.put_bytes(text)


@pytest.fixture(params=["file", "memory"])
def swept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swept]:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    root = f"memory://{uuid.uuid4().hex}/topics" if request.param == "memory" else str(tmp_path / "root" / "topics")
    found = Swept((root, {}))
    found.clock.rule(monkeypatch)
    yield found


def test_what_only_a_retired_version_holds_is_condemned_and_a_grace_period_later_deleted(swept: Swept) -> None:
    swept.publish(b"one")
    swept.publish(b"two")
    only_first = {blob.key for blob in (swept.blob(b"one"), swept.store.versions.record(1).manifest)}
    swept.clock.advance(30 * DAY)
    assert swept.sweep().condemned == ()
    swept.store.versions.retire(1, "ann", "superseded")
    report = swept.sweep(DAY)
    assert {item.key for item in report.condemned} == only_first
    assert {item.why for item in report.condemned} == {"of version 1, which is retired"}
    assert report.condemned_bytes == sum(item.size for item in report.condemned) > 0
    assert report.deleted == ()
    deleted_at = swept.clock.now + GRACE
    assert all(_near(item.may_go, deleted_at) for item in report.condemned)
    report = swept.sweep(GRACE - timedelta(minutes=1))
    assert (report.deleted, report.condemned, {item.key for item in report.waiting}) == ((), (), only_first)
    assert all(_near(item.may_go, deleted_at) for item in report.waiting)
    report = swept.sweep(timedelta(minutes=2))
    assert swept.keys(report) == only_first
    assert report.deleted_bytes == sum(item.size for item in report.deleted)
    assert verify(swept.store, 2) == []
    assert swept.store.versions.retained() == [2]
    assert swept.store.versions.record(1).version == 1
    assert swept.store.objects.list("condemned") == swept.store.objects.list("deleting") == []
    assert swept.sweep(30 * DAY).deleted == ()


def _near(time: datetime | None, other: datetime) -> bool:
    """The same, but for the seconds that the store's clock goes on with each request."""
    return time is not None and abs(time - other) < timedelta(minutes=1)


def test_what_is_too_young_to_be_condemned_waits_and_says_until_when(swept: Swept) -> None:
    swept.publish(b"one")
    swept.publish(b"two")
    made = swept.clock.now
    only_first = {*(blob.ref.key for blob in swept.store.versions.manifest(1).blobs)}
    only_first.add(swept.store.versions.record(1).manifest.key)
    swept.clock.advance(2 * DAY)
    swept.store.versions.retire(1, "ann", "purged")
    report = swept.sweep(DAY)
    assert {item.key for item in report.waiting} == only_first
    assert {(item.since, item.why) for item in report.waiting} == {(None, "of version 1, which is retired")}
    assert report.condemned_bytes == 0
    may_go = max(item.may_go for item in report.waiting if item.may_go is not None)
    assert _near(may_go, made + 2 * GRACE)
    # Sweeps that come as early as they can do what it says.
    minute = timedelta(minutes=1)
    assert {item.key for item in swept.sweep(made + GRACE + minute - swept.clock.now).condemned} == only_first
    assert swept.sweep(may_go - minute - swept.clock.now).deleted == ()
    assert swept.keys(swept.sweep(3 * minute)) == only_first


def test_a_retired_version_is_not_opened_and_says_when_and_why(swept: Swept) -> None:
    swept.publish(b"one")
    swept.publish(b"two")
    tombstone = swept.store.versions.retire(2, "ann", "wrong source")
    assert swept.store.versions.retire(2, "bob", "again") == tombstone
    with pytest.raises(RetiredVersionError, match=f"2 .* was retired at {tombstone.since[:19]}.* by ann: wrong source"):
        swept.store.versions.manifest(2)
    assert swept.store.versions.newest() == 1
    assert swept.store.versions.retired() == {2: tombstone}
    assert swept.publish(b"three") == 3
    assert swept.store.versions.record(3).parent == 2


def test_a_version_that_a_channel_points_to_is_not_retired(swept: Swept) -> None:
    swept.publish(b"one")
    swept.publish(b"two")
    swept.store.channels.promote("production", 1, "ann", "first")
    with pytest.raises(StorageError, match="channel production points to it"):
        swept.store.versions.retire(1, "ann", "old")
    assert swept.store.versions.retained() == [1, 2]


def test_a_version_promoted_while_it_is_retired_is_kept(swept: Swept) -> None:
    """The promotion looked before the tombstone was there, the retirement before the channel's record was."""
    swept.publish(b"one")
    swept.publish(b"two")
    other, backend = swept.open()
    backend.before = lambda operation, key: (
        swept.store.versions.retire(1, "bob", "old") if operation == "create" and key.startswith("channels/") else None
    )
    other.channels.promote("production", 1, "ann", "good")
    assert (swept.store.versions.retained(), swept.store.versions.retired()) == ([1, 2], {})
    for _ in range(4):
        swept.sweep(GRACE)
    assert verify(swept.store, swept.store.channels.version("production")) == []
    # Once the channel leaves it, it is retired, and its readers have a grace period from then on.
    swept.store.channels.promote("production", 2, "ann", "better")
    assert swept.store.versions.retained() == [2]
    swept.sweep()
    swept.sweep(GRACE - DAY)
    assert swept.store.blobs.exists(swept.store.versions.record(1).manifest)
    swept.sweep(2 * DAY)
    assert not swept.store.blobs.exists(swept.store.versions.record(1).manifest)


def test_a_reader_keeps_what_was_retired_under_it_for_a_grace_period(swept: Swept) -> None:
    """Even where its blobs had been condemned long before the version took them up again."""
    ref = swept.blob(b"one")
    swept.sweep(GRACE + DAY)  # condemns the orphan
    swept.clock.advance(GRACE - 2 * DAY)
    swept.store.objects.create("a/b", b"x")
    manifest = manifest_of(swept.store, chunks=b"other")
    blob = manifest.blobs[0].model_copy(update={"role": "documents", "digest": ref.digest, "size": ref.size})
    swept.store.versions.publish(manifest.model_copy(update={"blobs": (blob,)}), "run-1")
    swept.publish(b"two", "run-2")
    reader = swept.store.versions.manifest(1)
    swept.store.versions.retire(1, "ann", "short-lived")
    assert swept.sweep(3 * DAY).deleted == ()
    swept.sweep(3 * DAY)
    assert swept.store.versions.missing(reader) == []
    swept.sweep(DAY)
    swept.sweep(GRACE)
    assert len(swept.store.versions.missing(reader)) == 1


def test_orphans_wait_a_grace_period_before_they_are_condemned(swept: Swept) -> None:
    work = swept.blob(b"a work list of a refresh in flight")
    assert swept.sweep(GRACE - DAY).condemned == ()
    report = swept.sweep(DAY)
    assert [(item.key, item.why) for item in report.condemned] == [(work.key, "of no version")]
    assert swept.keys(swept.sweep(GRACE)) == {work.key}


def test_outcomes_not_yet_in_a_version_are_kept_while_they_are_used(swept: Swept) -> None:
    units, ref = swept.store.units, swept.blob(b"memory")
    outcome = units.record(Outcome(stage="memorize", fingerprint="f" * 64, blobs={"memory": ref}))
    for _ in range(20):  # a refresh that fails each night and finds the unit done
        swept.clock.advance(DAY)
        assert swept.store.units.find("memorize", "f" * 64) == outcome
        assert swept.sweep().deleted == ()
    swept.sweep(GRACE)
    assert swept.keys(swept.sweep(GRACE)) == {ref.key}
    (record,) = swept.store.objects.list("units")
    swept.sweep()
    report = swept.sweep(GRACE)
    assert [(item.key, item.why) for item in report.deleted] == [(record, "record of a unit whose blobs are gone")]


def test_the_unit_cache_of_a_retained_version_stays(swept: Swept) -> None:
    manifest = manifest_of(swept.store, memory=b"memory")
    swept.store.units.record(Outcome(stage="memorize", fingerprint="f" * 64, blobs={"memory": manifest.blobs[0].ref}))
    swept.store.versions.publish(manifest, "run")
    for _ in range(5):
        assert swept.sweep(GRACE).deleted == ()
    assert swept.store.units.find("memorize", "f" * 64) is not None


def test_what_is_written_again_is_as_if_it_were_new(swept: Swept, tmp_path: Path) -> None:
    ref = swept.blob(b"one")
    (tmp_path / "file").write_bytes(b"two")
    other = swept.store.blobs.put_file(tmp_path / "file")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE - timedelta(hours=1))
    assert swept.blob(b"one") == ref
    assert swept.store.blobs.put_file(tmp_path / "file") == other
    report = swept.sweep(DAY)
    assert report.deleted == report.waiting == report.condemned == ()
    assert {item.key for item in swept.sweep(GRACE).condemned} == {ref.key, other.key}


def test_an_intent_protects_its_blobs_for_a_day(swept: Swept) -> None:
    ref = swept.blob(b"one")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    swept.store.intents.declare(Intent(write_id="a" * 32, run_id="run", blobs=(ref,), since=""))
    assert swept.keys(swept.sweep(LIFETIME - timedelta(hours=1))) == set()
    report = swept.sweep(timedelta(hours=2))
    assert [item.why for item in report.deleted] == ["intent of a publish that died over 1 day ago"]
    assert swept.store.objects.list("intents") == []
    swept.sweep(GRACE)
    assert not swept.store.blobs.exists(ref)


def test_a_dry_run_tells_the_same_and_writes_nothing(swept: Swept) -> None:
    swept.blob(b"one")
    operations: list[str] = []
    swept.backend.after = lambda operation, key: operations.append(operation)
    for after in (DAY, GRACE, GRACE):
        swept.clock.advance(after)
        operations.clear()
        told = sweep(swept.store, dry_run=True)
        assert set(operations) <= {"list", "read", "stat"}
        done = sweep(swept.store)
        assert told.dry_run
        assert [item.key for item in told.deleted] == [item.key for item in done.deleted]
        assert [item.key for item in told.condemned] == [item.key for item in done.condemned]
    assert done.deleted_bytes == 3


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_publishers_and_sweepers_may_be_wrong_by_a_day(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    """All ages are differences of the store's own times: nothing is deleted sooner, and nothing is kept for ever."""
    swept.clock.rule(monkeypatch, skew)
    swept.publish(b"one")
    swept.publish(b"two")
    ref = swept.store.versions.record(1).manifest
    swept.clock.advance(GRACE)
    swept.store.versions.retire(1, "ann", "old")
    swept.clock.rule(monkeypatch, -skew)
    swept.sweep()
    assert swept.sweep(GRACE - timedelta(minutes=1)).deleted == ()
    assert ref.key in swept.keys(swept.sweep(timedelta(minutes=2)))


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_a_refresh_of_four_days_keeps_what_it_found_whatever_the_clocks(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    """Whatever the age of what it finds: found at any time before its deletion, it is there four days later."""
    refs = [swept.blob(b"memory %d" % number) for number in range(16)]
    for number, ref in enumerate(refs):
        swept.store.units.record(Outcome(stage="memorize", fingerprint=f"{number:064x}", blobs={"memory": ref}))
    swept.clock.rule(monkeypatch, skew)
    found: dict[int, list[int]] = {}
    for day in range(16 + 4):
        outcome = swept.store.units.find("memorize", f"{day:064x}") if day < 16 else None
        if outcome is not None:
            found.setdefault(day + 4, []).append(day)
        swept.sweep(DAY - timedelta(minutes=5))
        swept.clock.advance(timedelta(minutes=5))
        for number in found.get(day + 1, []):
            assert swept.store.blobs.exists(refs[number])
    assert len(found) >= 13


def test_a_sweep_that_cannot_read_a_reference_deletes_nothing(swept: Swept) -> None:
    swept.publish(b"one")
    orphan = swept.blob(b"orphan")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    swept.store.objects.put(swept.store.versions.record(1).manifest.key, b"{}")
    with pytest.raises(CorruptBlobError, match="manifest of version 1"):
        sweep(swept.store)
    assert swept.store.blobs.exists(orphan)


def test_a_publisher_that_comes_during_a_deletion_waits_for_its_end(swept: Swept) -> None:
    """It declares its intent after the sweep has looked for intents: the blob goes, and must not be relied on."""
    manifest = manifest_of(swept.store, documents=b"one")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    other, backend = swept.open()
    outcome: list[str] = []

    def publish_in_between(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("blobs/") and not outcome:
            outcome.append("began")
            began = swept.clock.now
            with pytest.raises(CorruptBlobError, match="not published"):
                swept.store.versions.publish(manifest, "run")
            outcome.append("waited" if swept.clock.now - began > timedelta(minutes=5) else "at once")

    backend.after = publish_in_between
    sweep(other)
    assert outcome == ["began", "waited"]
    assert list(swept.store.versions.numbers()) == []


def test_a_publisher_that_came_before_a_deletion_is_seen_by_it(swept: Swept) -> None:
    manifest = manifest_of(swept.store, documents=b"one")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    other, backend = swept.open()
    published: list[int] = []

    def publish_in_between(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("deleting/") and not published:
            published.append(swept.store.versions.publish(manifest, "run").version)

    backend.before = publish_in_between
    sweep(other)
    assert published == [1]
    assert verify(swept.store, 1) == []


def test_the_announcement_of_a_sweep_that_died_is_waited_out_and_removed(swept: Swept) -> None:
    manifest = manifest_of(swept.store, documents=b"one")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    other, backend = swept.open()

    def die(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("blobs/"):
            raise Crash

    backend.before = die
    with pytest.raises(Crash):
        sweep(other)
    assert len(swept.store.objects.list("deleting")) == 1
    began = swept.clock.now
    assert swept.store.versions.publish(manifest, "run").version == 1
    assert swept.clock.now - began >= PASS - timedelta(seconds=10)
    sweep(swept.store)
    assert swept.store.objects.list("deleting") == []
    assert verify(swept.store, 1) == []


def test_a_slow_sweep_stops_before_publishers_stop_waiting(swept: Swept) -> None:
    refs = [swept.blob(b"orphan %d" % number) for number in range(40)]
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    swept.backend.after = lambda operation, key: (
        swept.clock.advance(PASS * 0.6) if operation == "delete" and key.startswith("blobs/") else None
    )
    with pytest.raises(StorageError, match="too slow"):
        sweep(swept.store)
    # Deletions that had started by then are completed: at most one in each thread.
    assert 40 > sum(swept.store.blobs.exists(ref) for ref in refs) >= 40 - LOOKUPS


def test_two_sweeps_at_once_do_no_more_than_one(swept: Swept) -> None:
    swept.publish(b"one")
    orphan = swept.blob(b"orphan")
    other, backend = swept.open()

    def second(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("condemned/"):
            backend.before = lambda operation, key: None
            sweep(swept.store)

    for _ in range(3):
        backend.before = second
        swept.clock.advance(GRACE)
        sweep(other)
    assert not swept.store.blobs.exists(orphan)
    assert verify(swept.store, 1) == []
    sweep(swept.store)
    assert swept.store.objects.list("condemned") == []


def test_a_sweep_goes_on_when_another_takes_the_manifest_that_it_was_about_to_read(swept: Swept) -> None:
    swept.publish(b"one")
    swept.publish(b"two")
    swept.store.versions.retire(1, "ann", "superseded")
    swept.sweep(GRACE)
    swept.clock.advance(GRACE)
    manifest = swept.store.versions.record(1).manifest
    other, backend = swept.open()

    def second(operation: str, key: str) -> None:
        if operation == "read" and key == manifest.key:
            backend.before = lambda operation, key: None
            assert manifest.key in swept.keys(swept.sweep())

    backend.before = second
    sweep(other)
    assert not swept.store.blobs.exists(manifest)
    assert verify(swept.store, 2) == []


def test_on_a_real_store_with_its_own_clock(store: CorpusStore) -> None:
    """Without a grace period, on each backend: the second sweep deletes what the first condemned."""
    for text in (b"one", b"two"):
        store.versions.publish(manifest_of(store, documents=text), "run")
    store.versions.retire(1, "ann", "old")
    kept = store.blobs.put_bytes(b"work list")
    first = sweep(store, grace=timedelta(0))
    assert first.deleted == ()
    time.sleep(1.1)  # S3 keeps whole seconds
    store.objects.touch(kept.key)
    second = sweep(store, grace=timedelta(0))
    assert {item.why for item in second.deleted} == {"of version 1, which is retired"}
    assert len(second.deleted) == 2
    assert verify(store, 2) == []
    assert store.objects.list("deleting") == []


def test_files_that_crashed_writers_left_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    root = tmp_path / "root" / "topics"
    store = CorpusStore(str(root))
    store.versions.publish(manifest_of(store, documents=b"one"), "run")
    old = time.time() - (GRACE + DAY).total_seconds()
    left = [root / "blobs" / "sha256" / "ab" / ".part-old", root / "versions" / ".part-old"]
    spared = [root / "versions" / ".part-young", tmp_path / "root" / "others" / ".part-old", root / "runs" / "part-old"]
    for path in (*left, *spared):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of it")
        if path != spared[0]:
            os.utime(path, (old, old))
    told = sweep(store, dry_run=True)
    assert {(item.key, item.size, item.why) for item in told.deleted} == {
        (str(path.relative_to(root)), 10, "begun by a writer that died, and never finished") for path in left
    }
    assert all(path.exists() for path in left)
    assert sweep(store).deleted == told.deleted
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in spared)
    assert verify(store, 1) == []


def test_uploads_that_crashed_writers_left_are_aborted_when_they_are_old(
    s3_store: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    uri, options = s3_store
    bucket, fs = uri.removeprefix("s3://"), s3fs.S3FileSystem(**options)
    store = CorpusStore(f"{uri}/kb/topics", options)
    store.versions.publish(manifest_of(store, documents=b"one"), "run")

    def begin(key: str) -> None:
        upload = {"Bucket": bucket, "Key": key}
        upload["UploadId"] = fs.call_s3("create_multipart_upload", **upload)["UploadId"]
        for number in (1, 2):
            fs.call_s3("upload_part", **upload, PartNumber=number, Body=b"x" * 1000)

    def unfinished() -> list[str]:
        return [item["Key"] for item in fs.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])]

    begin("kb/topics/blobs/sha256/ab/abcd")
    begin("kb/topics-2/blobs/sha256/ab/abcd")
    assert sweep(store).deleted == ()
    time.sleep(1.1)  # S3 keeps whole seconds
    told = sweep(store, grace=timedelta(0), dry_run=True)
    assert [(item.key, item.size) for item in told.deleted] == [("blobs/sha256/ab/abcd", 2000)]
    assert len(unfinished()) == 2
    assert sweep(store, grace=timedelta(0)).deleted == told.deleted
    assert unfinished() == ["kb/topics-2/blobs/sha256/ab/abcd"]
    assert verify(store, 1) == []
