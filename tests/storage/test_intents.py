"""The rehearsal of a publisher's writes, which `memorag doctor` does in a store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from memorag_pipeline.errors import StorageError
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.intents import LIFETIME


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
