"""Verifying a version finds every damaged blob and names each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage import CorpusStore, Manifest
from memorag_pipeline.storage.verify import verify


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
