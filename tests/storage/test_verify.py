"""Verifying a version finds every damaged blob and names each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage import CorpusStore, Manifest
from memorag_pipeline.storage.verify import verify
from memorag_pipeline.storage.verify_notes import VerifiedBlobs


def test_a_whole_version_has_no_problem(store: CorpusStore, make_manifest: Callable[..., Manifest]) -> None:
    store.versions.publish(make_manifest(documents=b"text", index=b"vectors"), "run-1")
    assert verify(store, 1) == []
    with pytest.raises(NotFoundError, match="no version 2"):
        verify(store, 2)


def test_every_damaged_blob_is_named(store: CorpusStore, make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(documents=b"text", chunks=b"passages", shards=b"plan", index=b"vectors")
    store.versions.publish(manifest, "run-1")
    keys = {blob.role: blob.ref.key for blob in manifest.blobs}
    store.objects.delete(keys["documents"])
    store.objects.put(keys["chunks"], b"passage")
    store.objects.put(keys["index"], b"vectorz")
    problems = {problem.role: problem for problem in verify(store, 1)}
    assert {role: problem.problem for role, problem in problems.items()} == {
        "documents": "is missing",
        "chunks": "has 7 bytes instead of 8",
        "index": "was altered: its SHA-256 is another",
    }
    assert str(problems["index"]) == (
        f"index/00000.bin (sha256:{manifest.of_role('index')[0].digest}) was altered: its SHA-256 is another"
    )


def test_a_damaged_manifest_is_the_one_problem_that_can_be_told(
    store: CorpusStore, make_manifest: Callable[..., Manifest]
) -> None:
    published = store.versions.publish(make_manifest(documents=b"text"), "run-1")
    store.objects.put(published.manifest.key, b"{}")
    assert [(problem.role, problem.problem) for problem in verify(store, 1)] == [
        ("manifest", f"has 2 bytes instead of {published.manifest.size}")
    ]


@pytest.fixture
def reads(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are read from now on, in pieces."""
    keys: list[str] = []
    pieces = store.objects.pieces

    def counted(key: str, most: int) -> Iterator[bytes]:
        keys.append(key)
        return pieces(key, most)

    monkeypatch.setattr(store.objects, "pieces", counted)
    return keys


def of_blobs(reads: list[str], manifest: Manifest) -> list[str]:
    keys = {blob.ref.key: blob.role for blob in manifest.blobs}
    return sorted(keys[key] for key in reads if key in keys)


def test_a_second_check_reads_only_what_may_have_changed(
    store: CorpusStore, make_manifest: Callable[..., Manifest], reads: list[str]
) -> None:
    manifest = make_manifest(documents=b"text", chunks=b"passages", index=b"vectors")
    store.versions.publish(manifest, "run-1")
    assert verify(store, 1) == []
    assert of_blobs(reads, manifest) == ["chunks", "documents", "index"]

    reads.clear()
    assert verify(store, 1) == []
    # The memory backend reports no state of an object, so all are read again.
    known = not store.uri.startswith("memory://")
    assert of_blobs(reads, manifest) == ([] if known else ["chunks", "documents", "index"])

    reads.clear()
    time.sleep(1.1)  # S3 reports the time of a write in seconds
    store.objects.put(manifest.of_role("index")[0].ref.key, b"vectorz")
    assert [problem.role for problem in verify(store, 1)] == ["index"]
    assert of_blobs(reads, manifest) == (["index"] if known else ["chunks", "documents", "index"])

    reads.clear()
    assert [problem.role for problem in verify(store, 1, again=True)] == ["index"]
    assert of_blobs(reads, manifest) == ["chunks", "documents", "index"]


def test_an_interrupted_check_goes_on(
    store: CorpusStore, make_manifest: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.uri.startswith("memory://"):
        pytest.skip("tells no state of an object")
    manifest = make_manifest(**{f"role{number}": b"%d" % number for number in range(40)})
    store.versions.publish(manifest, "run-1")
    pieces, read = store.objects.pieces, []

    def interrupted(key: str, most: int) -> Iterator[bytes]:
        if len(read) == 25:
            raise KeyboardInterrupt
        read.append(key)
        return pieces(key, most)

    monkeypatch.setattr(store.objects, "pieces", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(store, 1)
    first = set(read)
    read.clear()
    assert len(first) < 40
    monkeypatch.setattr(store.objects, "pieces", lambda key, most: read.append(key) or pieces(key, most))
    assert verify(store, 1) == []
    assert not (set(read) & first) - {store.versions.record(1).manifest.key}
    assert len(read) < 20


def test_old_notes_are_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    store = CorpusStore(str(tmp_path / "store"))
    ref = store.blobs.put_bytes(b"text")
    stored = store.objects.stat(ref.key)
    VerifiedBlobs(store.uri).add(ref, stored)
    assert VerifiedBlobs(store.uri).has(ref, stored)
    (notes,) = (tmp_path / "cache" / "verified").iterdir()
    note, _, at = notes.read_text().strip().partition(" ")
    notes.write_text(f"garbage\n{note} {int(at) - 90_000}\n")
    assert not VerifiedBlobs(store.uri).has(ref, stored)
    assert notes.read_text() == ""


def test_many_blobs_are_looked_up_by_listing(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing for each of at most 256 folders, and few requests for single blobs."""
    refs = [store.blobs.put_bytes(b"%d" % number) for number in range(400)]
    asked: list[str] = []
    stat, listed = store.objects.stat, store.objects.listed
    monkeypatch.setattr(store.objects, "stat", lambda key: asked.append(key) or stat(key))
    monkeypatch.setattr(store.objects, "listed", lambda prefix: asked.append(prefix) or listed(prefix))
    gone, short = refs[10], refs[20]
    store.objects.delete(gone.key)
    store.objects.put(short.key, b"")
    found = store.blobs.existing(refs)
    assert set(refs) - found.keys() == {gone, short}
    assert len(asked) < 300
