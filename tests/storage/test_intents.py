"""The rehearsal of a publisher's writes, which `memorag doctor` does in a store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from memorag_pipeline.errors import StorageError
from memorag_pipeline.storage import BlobRef, CorpusStore, ObjectStore
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.intents import LIFETIME, Intent


def test_what_a_killed_rehearsal_leaves_protects_nothing_and_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CorpusStore(str(tmp_path / "kb" / "topics"))
    store.intents.rehearse()
    assert store.objects.list("intents") == []

    def refused(key: str) -> None:
        raise StorageError(f"cannot delete {key}")

    with monkeypatch.context() as patched:
        patched.setattr(store.objects, "delete", refused)
        with pytest.raises(StorageError, match="cannot delete"):
            store.intents.rehearse()
    (stored,) = store.intents.stored()
    intent = store.intents.read(stored.key)
    assert intent is not None and intent.blobs == ()
    report = sweep(store)
    assert (report.deleted, report.foreign, len(store.intents.stored())) == ((), (), 1)  # young
    monkeypatch.setattr(type(store.deletions), "store_time", lambda self: datetime.now(UTC) + LIFETIME)
    assert [swept.key for swept in sweep(store).deleted] == [stored.key]
    assert store.intents.stored() == []


def test_an_intent_may_be_longer_than_other_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names as many blobs as a manifest."""
    store = CorpusStore(str(tmp_path / "kb" / "topics"))
    monkeypatch.setattr(ObjectStore.read, "__defaults__", (1000,))
    blobs = tuple(BlobRef(digest=f"{number:064x}", size=number) for number in range(100))
    intent = Intent(write_id="a" * 32, run_id="run", blobs=blobs, since="2026-01-01T00:00:00+00:00")
    store.intents.declare(intent)
    (stored,) = store.intents.stored()
    assert stored.size > 1000 and store.intents.read(stored.key) == intent
