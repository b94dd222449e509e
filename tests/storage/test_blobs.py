"""Blobs: dedupe, verification before use, repair of what was cut short."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.storage import BlobRef, CorpusStore
from memorag_pipeline.storage.cache import LocalCache
from tests.storage.conftest import manifest_of

DATA = b"a document's text"


def damage(store: CorpusStore, ref: BlobRef, kind: str) -> None:
    """Do to a stored blob what a bad disk or a careless hand does."""
    if kind == "missing":
        store.objects.delete(ref.key)
    elif kind == "cut short":
        store.objects.put(ref.key, DATA[:-1])
    else:
        store.objects.put(ref.key, DATA[:-1] + b"T")


KINDS = {"missing": "is missing", "cut short": "has 16 bytes instead of 17", "altered": "was altered"}


def test_bytes_come_back_by_digest(store: CorpusStore) -> None:
    ref = store.blobs.put_bytes(DATA)
    assert ref == BlobRef(digest=bytes_digest(DATA), size=17)
    assert store.blobs.put_bytes(DATA) == ref
    assert store.blobs.get_bytes(ref) == DATA
    assert store.blobs.exists(ref)
    assert store.blobs.problem(ref) is None
    assert store.objects.list("blobs") == [ref.key]


def test_a_file_comes_back_as_a_file(store: CorpusStore, tmp_path: Path) -> None:
    source = tmp_path / "memory.safetensors"
    source.write_bytes(b"0123456789" * 4_000_000)
    ref = store.blobs.put_file(source)
    assert store.blobs.put_file(source) == ref
    opened = store.blobs.open_file(ref, "memory")
    assert opened.read_bytes() == source.read_bytes()
    assert store.blobs.open_file(ref, "memory") == opened


def test_equal_tables_are_one_blob(store: CorpusStore) -> None:
    table = pa.table({"uri": ["a", "b"], "tokens": [1, 2]})
    ref = store.blobs.put_table(table)
    assert store.blobs.put_table(pa.table({"uri": ["a", "b"], "tokens": [1, 2]})) == ref
    assert store.blobs.get_table(ref) == table
    assert store.blobs.get_table(ref, ["tokens"]).column_names == ["tokens"]


def test_a_uri_names_its_blob(store: CorpusStore) -> None:
    ref = store.blobs.put_json({"b": 1, "a": [1, None]})
    assert store.blobs.ref_of(store.blobs.uri(ref)) == ref
    assert store.blobs.get_json(ref) == {"a": [1, None], "b": 1}
    for uri in (store.uri, store.blobs.uri(BlobRef(digest="0" * 64, size=1))):
        with pytest.raises(CorruptBlobError, match=uri):
            store.blobs.ref_of(uri)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_blob_is_named_and_not_used(store: CorpusStore, kind: str) -> None:
    ref = store.blobs.put_bytes(DATA)
    damage(store, ref, kind)
    for read in (store.blobs.get_bytes, store.blobs.open_file):
        with pytest.raises(CorruptBlobError, match=f"documents/00001: blob sha256:{ref.digest} at .* {KINDS[kind]}"):
            read(ref, "documents/00001")
    assert KINDS[kind] in (store.blobs.problem(ref) or "")


def test_a_blob_that_was_altered_after_it_was_verified_is_found(store: CorpusStore) -> None:
    """Opening twice reads the file once, but not when it is another by then."""
    ref = store.blobs.put_bytes(DATA)
    opened = store.blobs.open_file(ref)
    opened.chmod(0o644)
    opened.write_bytes(DATA[:-1] + b"T")
    if store.objects.local_path(ref.key) == opened:
        with pytest.raises(CorruptBlobError, match="was altered"):
            store.blobs.open_file(ref)
    else:  # only the cached copy is bad: it is fetched again
        assert store.blobs.open_file(ref).read_bytes() == DATA


@pytest.mark.parametrize("from_file", [False, True])
def test_writing_a_blob_again_repairs_one_that_was_cut_short(
    store: CorpusStore, tmp_path: Path, from_file: bool
) -> None:
    ref = store.blobs.put_bytes(DATA)
    damage(store, ref, "cut short")
    assert not store.blobs.exists(ref)
    if from_file:
        (tmp_path / "source").write_bytes(DATA)
        store.blobs.put_file(tmp_path / "source")
    else:
        store.blobs.put_bytes(DATA)
    assert store.blobs.get_bytes(ref) == DATA


def test_a_fetch_that_breaks_off_leaves_no_file_in_the_cache(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path)

    def half(target: Path) -> None:
        target.write_bytes(DATA[:5])
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.fetch(bytes_digest(DATA), len(DATA), half)
    assert not [path for path in tmp_path.glob("??/*") if path.is_file()]
    assert not list(tmp_path.glob("leases/*/*"))
    assert cache.fetch(bytes_digest(DATA), len(DATA), lambda path: path.write_bytes(DATA) and None).read_bytes() == DATA


def test_json_that_would_be_too_long_to_read_is_not_written(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan or a manifest that nothing can read would be found out by the next stage, or by every reader."""
    monkeypatch.setattr("memorag_pipeline.storage.blobs.LARGEST_JSON", 40)
    assert store.blobs.put_json(["a" * 30])
    for write in (
        lambda: store.blobs.put_json(["a" * 40]),
        lambda: store.versions.publish(manifest_of(store, a=b"words"), "run"),
    ):
        with pytest.raises(StorageError, match=r"not written.*at most 40 are read; split the corpus"):
            write()
    assert list(store.versions.numbers()) == [] and list(store.objects.list("intents")) == []
    assert len(store.objects.list("blobs")) == 2  # the first, and what the manifest would have named
