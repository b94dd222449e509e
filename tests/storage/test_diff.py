"""The difference between two versions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob, ModelRecord
from memorag_pipeline.storage import diff as module
from memorag_pipeline.storage.diff import Changes, ValueChange, VersionDiff, diff

NOTHING = Changes((), (), ())
Part = dict[str, str]


def publish(
    store: CorpusStore,
    documents: list[Part],
    quarantine: Part | None = None,
    memories: dict[str, bytes] | None = None,
    model: str = "1" * 64,
    max_tokens: int = 200,
) -> int:
    """Publish parts of documents (URI -> text, each one chunk), a quarantine (URI -> reason) and memories."""
    blobs: list[ManifestBlob] = []

    def add(role: str, path: str, ref: Any) -> None:
        blobs.append(ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size))

    for number, part in enumerate(documents):
        uris, texts = list(part), list(part.values())
        table = pa.table(
            {"uri": uris, "source_digest": pa.nulls(len(uris), pa.string()), "text_digest": texts, "text": texts}
        )
        add("documents", f"documents/{number:05d}.parquet", store.blobs.put_table(table))
        chunks = pa.table({"chunk_id": [f"chunk of {text}" for text in texts], "digest": texts})
        add("chunks", f"chunks/{number:05d}.parquet", store.blobs.put_table(chunks))
    if quarantine:
        table = pa.table({"uri": list(quarantine), "reason": list(quarantine.values())})
        add("quarantine", "quarantine/00000.parquet", store.blobs.put_table(table))
    for shard_id, data in (memories or {}).items():
        add("memory", f"memories/{shard_id}.safetensors", store.blobs.put_bytes(data))
    manifest = Manifest(
        corpus="topics",
        language="en",
        parent=None,
        spec_fingerprint="0" * 64,
        spec={"language": "en", "chunking": {"max_tokens": max_tokens}},
        models=(ModelRecord(role="memory", name="a", digest=model),),
        blobs=tuple(blobs),
        counts={"documents": sum(map(len, documents))},
    )
    return store.versions.publish(manifest, "run").version


def test_documents_chunks_and_memories_are_compared(store: CorpusStore) -> None:
    old = publish(store, [{"a": "1", "b": "2"}, {"c": "3", "d": "4"}], None, {"s1": b"1 2", "s2": b"3", "s3": b"4"})
    new = publish(store, [{"a": "1", "b": "2"}, {"c": "three", "e": "5"}], {"f": "empty"}, {"s1": b"1 2", "s2": b"35"})
    found = diff(store, old, new)
    assert (found.old, found.new) == (1, 2)
    assert found.documents == Changes(added=("e",), changed=("c",), removed=("d",))
    assert found.chunks == Changes(
        added=("chunk of 5", "chunk of three"), changed=(), removed=("chunk of 3", "chunk of 4")
    )
    assert found.quarantined == ("f",)
    assert found.memories == Changes(added=(), changed=("s2",), removed=("s3",))
    assert found.models == found.spec == ()
    before = {blob.digest for blob in store.versions.manifest(old).blobs}
    assert found.new_bytes == sum(b.size for b in store.versions.manifest(new).blobs if b.digest not in before)


def test_a_document_that_moves_to_another_part_is_not_a_change(store: CorpusStore) -> None:
    old = publish(store, [{"a": "1", "b": "2"}, {"c": "3"}])
    new = publish(store, [{"a": "1"}, {"b": "2", "c": "3"}])
    found = diff(store, old, new)
    assert found.documents == found.chunks == NOTHING
    assert found.new_bytes > 0


def test_a_version_does_not_differ_from_itself(store: CorpusStore) -> None:
    number = publish(store, [{"a": "1"}], {"f": "empty"}, {"s1": b"1"})
    assert diff(store, number, number) == VersionDiff(1, 1, NOTHING, (), NOTHING, NOTHING, (), (), 0)


def test_models_and_spec_are_compared(store: CorpusStore) -> None:
    old = publish(store, [{"a": "1"}])
    new = publish(store, [{"a": "1"}], model="2" * 64, max_tokens=100)
    found = diff(store, old, new)
    assert found.documents == NOTHING
    assert [(change.name, change.old["digest"], change.new["digest"]) for change in found.models] == [
        ("memory", "1" * 64, "2" * 64)
    ]
    assert found.spec == (ValueChange("chunking.max_tokens", 200, 100),)


def test_parts_that_both_versions_share_are_not_read(store: CorpusStore) -> None:
    old = publish(store, [{"a": "1"}, {"b": "2"}])
    new = publish(store, [{"a": "1"}, {"b": "two"}])
    for blob in store.versions.manifest(old).blobs:
        if blob.path.endswith("00000.parquet"):
            store.objects.delete(blob.ref.key)
    assert diff(store, old, new).documents == Changes((), ("b",), ())


def test_an_unknown_version_is_told(store: CorpusStore) -> None:
    number = publish(store, [{"a": "1"}])
    with pytest.raises(NotFoundError, match="no version 5"):
        diff(store, number, 5)


def test_blobs_of_each_version_are_counted_once(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each blob of the new version took a minute at 20,000 of them."""
    old = publish(store, [{"a": "1"}, {"b": "2"}, {"c": "3"}])
    new = publish(store, [{"a": "1"}, {"b": "4"}, {"c": "3"}])
    counted, sizes = list[Manifest](), module._sizes
    monkeypatch.setattr(module, "_sizes", lambda manifest: counted.append(manifest) or sizes(manifest))
    assert diff(store, old, new).documents == Changes((), ("b",), ())
    assert len(counted) == 2
