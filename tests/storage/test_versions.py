"""The commit protocol: one chain of versions, nobody's lost, nothing half published."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError, StorageError
from memorag_pipeline.storage import CorpusStore, Manifest
from tests.storage.conftest import Root, manifest_of
from tests.storage.faults import StoreClock, lose_answer, open_faulty

MakeManifest = Callable[..., Manifest]


def chain(store: CorpusStore) -> list[tuple[int, int | None]]:
    """Number and parent of every version; record and manifest must agree."""
    found = []
    for number in store.versions.numbers():
        record = store.versions.record(number)
        assert store.versions.manifest(number).parent == record.parent
        found.append((record.version, record.parent))
    return found


def test_versions_are_numbered_from_one_and_name_their_parent(store: CorpusStore, make_manifest: MakeManifest) -> None:
    assert store.versions.newest() is None
    for number, text in enumerate([b"one", b"two", b"three"], start=1):
        published = store.versions.publish(make_manifest(documents=text), f"run-{number}")
        assert (published.version, published.created) == (number, True)
    assert chain(store) == [(1, None), (2, 1), (3, 2)]
    assert store.versions.newest() == 3
    assert store.versions.record(2).run_id == "run-2"


def test_publishing_what_the_newest_version_holds_makes_no_version(
    store: CorpusStore, make_manifest: MakeManifest
) -> None:
    first = store.versions.publish(make_manifest(documents=b"one"), "run-1")
    again = store.versions.publish(make_manifest(documents=b"one"), "run-2")
    assert (again.version, again.created, again.manifest) == (1, False, first.manifest)
    store.versions.publish(make_manifest(documents=b"two"), "run-3")
    back = store.versions.publish(make_manifest(documents=b"one"), "run-4")
    assert (back.version, back.created) == (3, True)
    assert chain(store) == [(1, None), (2, 1), (3, 2)]


def test_nobody_is_lost_when_many_publish_at_once(root: Root, store: CorpusStore) -> None:
    publishers = 8
    gate = threading.Barrier(publishers)

    def publish(number: int) -> int:
        own = CorpusStore(*root)
        manifest = manifest_of(own, documents=b"publisher %d" % number)
        gate.wait()
        return own.versions.publish(manifest, f"run-{number}").version

    with ThreadPoolExecutor(publishers) as pool:
        numbers = list(pool.map(publish, range(publishers)))
    assert sorted(numbers) == list(range(1, publishers + 1))
    assert chain(store) == [(number, number - 1 or None) for number in range(1, publishers + 1)]
    for publisher, number in enumerate(numbers):
        (blob,) = store.versions.manifest(number).blobs
        assert store.blobs.get_bytes(blob.ref) == b"publisher %d" % publisher
    assert store.objects.list("intents") == []


def test_the_same_published_many_times_at_once_is_one_version(root: Root, store: CorpusStore) -> None:
    publishers = 8
    gate = threading.Barrier(publishers)

    def publish(number: int) -> tuple[int, bool]:
        own = CorpusStore(*root)
        manifest = manifest_of(own, documents=b"the same")
        gate.wait()
        published = own.versions.publish(manifest, f"run-{number}")
        return published.version, published.created

    with ThreadPoolExecutor(publishers) as pool:
        results = list(pool.map(publish, range(publishers)))
    assert chain(store) == [(1, None)]
    assert sorted(results) == [(1, False)] * (publishers - 1) + [(1, True)]


def test_a_lost_answer_to_a_commit_that_landed_is_a_success(root: Root, store: CorpusStore) -> None:
    store.versions.publish(manifest_of(store, documents=b"zero"), "run-0")
    unlucky, backend = open_faulty(root)
    lose_answer(backend, "create", "versions/")
    published = unlucky.versions.publish(manifest_of(store, documents=b"one"), "run-1")
    assert (published.version, published.created) == (2, True)
    assert chain(store) == [(1, None), (2, 1)]


def test_a_lost_answer_is_read_back_even_when_another_version_follows(root: Root, store: CorpusStore) -> None:
    overtaken, backend = open_faulty(root)

    def follow(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("versions/"):
            store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
            raise ConnectionResetError("connection reset by peer")

    backend.after = follow
    published = overtaken.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert (published.version, published.created) == (1, True)
    assert [store.versions.record(number).run_id for number in store.versions.numbers()] == ["mine", "theirs"]


def test_a_lost_answer_to_a_lost_race_is_rebased(root: Root, store: CorpusStore) -> None:
    """Another publisher takes the number first, and the answer that says so is lost."""
    beaten, backend = open_faulty(root)
    struck: list[str] = []

    def overtake(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("versions/") and not struck:
            struck.append(key)
            store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
            raise ConnectionResetError("connection reset by peer")

    backend.before = overtake
    published = beaten.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert (published.version, published.created) == (2, True)
    assert chain(store) == [(1, None), (2, 1)]
    assert [store.versions.record(number).run_id for number in (1, 2)] == ["theirs", "mine"]


def test_a_commit_that_may_land_later_leaves_the_last_version_and_its_intent(root: Root, store: CorpusStore) -> None:
    """The blobs of a commit record that is still on its way must be there when it arrives."""
    store.versions.publish(manifest_of(store, documents=b"one"), "run-1")
    failing, backend = open_faulty(root)

    def fail(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("versions/"):
            raise OSError("no route to host")

    backend.before = fail
    with pytest.raises(StorageError, match="no route to host"):
        failing.versions.publish(manifest_of(store, documents=b"two"), "run-2")
    assert chain(store) == [(1, None)]
    assert len(store.objects.list("intents")) == 1


def test_a_retry_finds_the_version_of_its_run_that_others_have_overtaken(
    store: CorpusStore, make_manifest: MakeManifest
) -> None:
    mine = make_manifest(documents=b"mine")
    first = store.versions.publish(mine, "run-1")
    store.versions.publish(make_manifest(documents=b"theirs"), "run-2")
    again = store.versions.publish(mine, "run-1")
    assert (again.version, again.created, again.manifest) == (1, False, first.manifest)
    assert chain(store) == [(1, None), (2, 1)]


def test_what_a_run_made_before_it_began_anew_is_not_its_retry(store: CorpusStore, make_manifest: MakeManifest) -> None:
    """A run that is started again under its old id, when the corpus has come back to what it was."""
    mine = make_manifest(documents=b"mine")
    store.versions.publish(mine, "run-1")
    store.versions.publish(make_manifest(documents=b"theirs"), "run-2")
    assert store.versions.publish(mine, "run-1", base=2).version == 3


@pytest.mark.parametrize("left", [b"", b"tw"])
def test_a_version_is_not_published_without_its_blobs(
    store: CorpusStore, make_manifest: MakeManifest, left: bytes
) -> None:
    store.versions.publish(make_manifest(documents=b"one"), "run-1")
    manifest = make_manifest(documents=b"one", chunks=b"two")
    ref = manifest.of_role("chunks")[0].ref
    store.objects.delete(ref.key)
    if left:
        store.objects.put(ref.key, left)
    assert store.versions.missing(manifest) == manifest.of_role("chunks")
    with pytest.raises(CorruptBlobError, match=rf"not published: .*chunks/00000.bin \(sha256:{ref.digest}\)"):
        store.versions.publish(manifest, "run-2")
    assert chain(store) == [(1, None)]


def test_only_blobs_that_the_base_has_not_are_looked_for_while_it_is_retained(root: Root, store: CorpusStore) -> None:
    store.versions.publish(manifest_of(store, documents=b"one"), "run-1")
    manifest = manifest_of(store, documents=b"one", chunks=b"two")
    old, new = manifest.blobs
    watched, backend = open_faulty(root)

    def looked_at(publish: Callable[[], object]) -> set[str]:
        keys: set[str] = set()
        backend.before = lambda operation, key: keys.add(key) if key.startswith("blobs/") else None
        publish()
        return keys

    fresh = {new.digest}
    keys = looked_at(lambda: watched.versions.publish(manifest, "run-2", base=1, fresh=fresh))
    assert keys == {new.ref.key, store.versions.record(2).manifest.key}
    store.versions.retire(1, "ann", "old")
    third = manifest_of(store, documents=b"one", chunks=b"three")
    assert old.ref.key in looked_at(
        lambda: watched.versions.publish(third, "run-3", base=1, fresh={third.blobs[1].digest})
    )
    store.objects.delete(new.ref.key)
    with pytest.raises(CorruptBlobError, match="not published"):
        store.versions.publish(manifest, "run-4", base=3, fresh=fresh)


def test_an_intent_names_every_blob_before_the_first_is_looked_at(root: Root, store: CorpusStore) -> None:
    manifest = manifest_of(store, documents=b"one")
    watched, backend = open_faulty(root)
    seen: list[tuple[str, str]] = []
    backend.before = lambda operation, key: seen.append((operation, key))
    published = watched.versions.publish(manifest, "run-1")
    touched = [number for number, (_, key) in enumerate(seen) if key.startswith("blobs/")]
    (intent,) = (number for number, (operation, key) in enumerate(seen) if (operation, key[:8]) == ("put", "intents/"))
    assert intent < touched[0]
    assert {seen[number][1] for number in touched} == {manifest.blobs[0].ref.key, published.manifest.key}
    assert store.objects.list("intents") == []


def test_the_intent_of_a_rebased_publish_names_its_new_manifest(root: Root, store: CorpusStore) -> None:
    beaten, backend = open_faulty(root)
    intents: list[bytes] = []

    def overtake(operation: str, key: str) -> None:
        if operation == "create" and key.startswith("versions/"):
            if not intents:
                store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
            intents.extend(store.objects.read(intent) for intent in store.objects.list("intents"))

    backend.before = overtake
    published = beaten.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert published.version == 2
    assert len(intents) == 2
    assert published.manifest.digest.encode() in intents[1]
    assert published.manifest.digest.encode() not in intents[0]


def test_an_unknown_version_is_told_with_those_that_exist(store: CorpusStore, make_manifest: MakeManifest) -> None:
    with pytest.raises(NotFoundError, match=r"no version 1; it has: none"):
        store.versions.record(1)
    store.versions.publish(make_manifest(documents=b"one"), "run-1")
    with pytest.raises(NotFoundError, match=r"no version 7; it has: 1"):
        store.versions.manifest(7)


def test_an_altered_commit_record_is_named(store: CorpusStore, make_manifest: MakeManifest) -> None:
    store.versions.publish(make_manifest(documents=b"one"), "run-1")
    (key,) = store.objects.list("versions")
    store.objects.put(key, b'{"version": 1}')
    with pytest.raises(CorruptBlobError, match=f"{key} was altered"):
        store.versions.record(1)


def test_a_manifest_of_another_format_is_told(store: CorpusStore, make_manifest: MakeManifest) -> None:
    published = store.versions.publish(make_manifest(documents=b"one"), "run-1")
    future = {**store.blobs.get_json(published.manifest), "format": 3, "beacons": []}
    record = store.versions.record(1).model_copy(update={"manifest": store.blobs.put_json(future)})
    store.objects.put(store.objects.list("versions")[0], canonical_json(record.model_dump(mode="json")))
    with pytest.raises(StorageError, match="has format 3, this release reads formats 1 and 2"):
        store.versions.manifest(1)


@pytest.mark.parametrize(("late", "told"), [(timedelta(seconds=40), 0), (timedelta(seconds=200), 3)])
def test_a_publish_waits_for_a_listing_to_show_the_newest_version(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    late: timedelta,
    told: int,
) -> None:
    """Pauses double, so that few requests are made; what is waited for is said once a minute."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    clock = StoreClock()
    clock.rule(monkeypatch)
    store, backend = open_faulty((str(tmp_path / "store"), {}), clock)
    store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
    shown, listed = clock.now + late, []
    backend.hidden = lambda key: key.startswith("versions/") and clock.now < shown
    backend.before = lambda operation, key: listed.append(key) if (operation, key) == ("list", "versions") else None
    with caplog.at_level(logging.WARNING):
        published = store.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert (published.version, published.created) == (2, True)
    assert len(caplog.records) == told
    assert all("no listing has shown it" in message for message in caplog.messages)
    assert len(listed) < 100


def test_a_publish_gives_up_when_no_listing_ever_shows_the_newest_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    clock = StoreClock()
    clock.rule(monkeypatch)
    store, backend = open_faulty((str(tmp_path / "store"), {}), clock)
    store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
    backend.hidden = lambda key: key.startswith("versions/")
    with pytest.raises(StorageError, match=r"version 1 of file://.* no listing has shown it; nothing was published"):
        store.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    backend.hidden = lambda key: False
    assert list(store.versions.numbers()) == [1]
    assert store.objects.list("intents") == []
