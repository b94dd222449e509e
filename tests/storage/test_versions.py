"""The commit protocol: one chain of versions, nobody's lost, nothing half published."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError, StorageError
from memorag_pipeline.storage import CorpusStore, Manifest, ObjectStore
from tests.storage.conftest import Root, manifest_of

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


class LosesAnAnswer(ObjectStore):
    """An object store whose first commit record is written while the connection breaks."""

    struck = False

    def create(self, key: str, data: bytes) -> bool:
        created = super().create(key, data)
        if key.startswith("versions/") and not self.struck:
            self.struck = True
            raise StorageError("connection reset by peer")
        return created


class FailsToCommit(ObjectStore):
    """An object store that cannot take commit records."""

    def create(self, key: str, data: bytes) -> bool:
        if key.startswith("versions/"):
            raise StorageError("no route to host")
        return super().create(key, data)


def with_objects(root: Root, kind: type[ObjectStore]) -> CorpusStore:
    store = CorpusStore(*root)
    store.versions._objects = kind(*root)
    return store


def test_a_lost_answer_to_a_commit_that_landed_is_a_success(root: Root, store: CorpusStore) -> None:
    store.versions.publish(manifest_of(store, documents=b"zero"), "run-0")
    unlucky = with_objects(root, LosesAnAnswer)
    published = unlucky.versions.publish(manifest_of(store, documents=b"one"), "run-1")
    assert (published.version, published.created) == (2, True)
    assert chain(store) == [(1, None), (2, 1)]


def test_a_lost_answer_is_read_back_even_when_another_version_follows(root: Root, store: CorpusStore) -> None:
    class Overtaken(LosesAnAnswer):
        def create(self, key: str, data: bytes) -> bool:
            try:
                return super().create(key, data)
            except StorageError:
                store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
                raise

    overtaken = with_objects(root, Overtaken)
    published = overtaken.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert (published.version, published.created) == (1, True)
    assert [store.versions.record(number).run_id for number in store.versions.numbers()] == ["mine", "theirs"]


def test_a_lost_answer_to_a_lost_race_is_rebased(root: Root, store: CorpusStore) -> None:
    """Another publisher takes the number first, and the answer that says so is lost."""

    class Beaten(LosesAnAnswer):
        def create(self, key: str, data: bytes) -> bool:
            if key.startswith("versions/") and not self.struck:
                store.versions.publish(manifest_of(store, documents=b"theirs"), "theirs")
            return super().create(key, data)

    beaten = with_objects(root, Beaten)
    published = beaten.versions.publish(manifest_of(store, documents=b"mine"), "mine")
    assert (published.version, published.created) == (2, True)
    assert chain(store) == [(1, None), (2, 1)]
    assert [store.versions.record(number).run_id for number in (1, 2)] == ["theirs", "mine"]


def test_a_commit_that_fails_leaves_the_last_version(root: Root, store: CorpusStore) -> None:
    store.versions.publish(manifest_of(store, documents=b"one"), "run-1")
    with pytest.raises(StorageError, match="no route to host"):
        with_objects(root, FailsToCommit).versions.publish(manifest_of(store, documents=b"two"), "run-2")
    assert chain(store) == [(1, None)]
    assert store.objects.list("intents") == []


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


def test_an_intent_names_the_blobs_while_a_publisher_is_at_work(root: Root, store: CorpusStore) -> None:
    seen: list[Any] = []

    class Watched(ObjectStore):
        def create(self, key: str, data: bytes) -> bool:
            if key.startswith("versions/"):
                seen.extend(self.read(intent) for intent in self.list("intents"))
            return super().create(key, data)

    manifest = manifest_of(store, documents=b"one")
    with_objects(root, Watched).versions.publish(manifest, "run-1")
    assert len(seen) == 1
    assert manifest.blobs[0].digest.encode() in seen[0]
    assert store.objects.list("intents") == []


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
    future = {**store.blobs.get_json(published.manifest), "format": 2, "beacons": []}
    record = store.versions.record(1).model_copy(update={"manifest": store.blobs.put_json(future)})
    store.objects.put(store.objects.list("versions")[0], canonical_json(record.model_dump(mode="json")))
    with pytest.raises(StorageError, match="has format 2, this release reads format 1"):
        store.versions.manifest(1)
