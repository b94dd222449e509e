"""Hostile content of a store: keys, links, sizes and files that claim to be more than they are."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import CorruptBlobError, MemoragError, OutsideStoreError, StorageError
from memorag_pipeline.storage import BlobRef, CorpusStore, ObjectStore
from memorag_pipeline.storage.objects import LARGEST_RECORD
from memorag_pipeline.storage.parquet import open_table
from memorag_pipeline.storage.verify import verify
from tests.storage.conftest import manifest_of

KEYS = [
    "%2e%2e/x",
    "a/%2e%2e%2f%2e%2e/x",
    "a/..%2fx",
    "a/%252e%252e/x",
    "a\\..\\..\\x",
    "..\\x",
    "a/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x",
    "a/\N{TWO DOT LEADER}/x",
    "a\N{FULLWIDTH SOLIDUS}..\N{FULLWIDTH SOLIDUS}x",
    "a/\N{DIVISION SLASH}x",
    "a/.hidden",
    "a/.part-x",
    "a/x?versionId=1",
    "a/x#y",
    "a/x y",
    "a/x\n",
    "~/x",
    "a/*",
    "C:/x",
    "s3://other/x",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_taken_literally_or_not_at_all(objects: ObjectStore, key: str, tmp_path: Path) -> None:
    calls = (
        lambda: objects.create(key, b"x"),
        lambda: objects.create_from_file(key, tmp_path / "none"),
        lambda: objects.put(key, b"x"),
        lambda: objects.read(key),
        lambda: list(objects.pieces(key, 1)),
        lambda: objects.download(key, tmp_path / "target", 1),
        lambda: objects.size(key),
        lambda: objects.list(key),
        lambda: objects.delete(key),
        lambda: objects.local_path(key),
    )
    for call in calls:
        with pytest.raises(StorageError, match="a key cannot leave the store's root"):
            call()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusStore:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    return CorpusStore(str(tmp_path / "store"))


def test_links_out_of_a_local_store_are_not_followed(local: CorpusStore, tmp_path: Path) -> None:
    manifest = manifest_of(local, documents=b"secret", chunks=b"text")
    local.versions.publish(manifest, "run-1")
    (outside := tmp_path / "outside").mkdir()
    (outside / "file").write_bytes(b"secret")
    blob = manifest.of_role("documents")[0]
    stored = tmp_path / "store" / blob.ref.key
    stored.unlink()
    stored.symlink_to(outside / "file")
    assert local.versions.missing(manifest) == [blob]
    for use in (local.blobs.get_bytes, local.blobs.open_file, local.blobs.exists):
        with pytest.raises(OutsideStoreError, match=rf"{blob.digest} leads out of the store .*; remove the link"):
            use(blob.ref)
    with pytest.raises(OutsideStoreError):
        local.objects.download(blob.ref.key, tmp_path / "target", 10)
    assert [(item.role, item.problem) for item in verify(local, 1)] == [
        ("documents", "is a symbolic link out of the store")
    ]


@pytest.mark.parametrize("target", ["../outside", "../store-of-another"])
def test_folders_that_lead_out_are_neither_read_nor_written(local: CorpusStore, tmp_path: Path, target: str) -> None:
    """The second name begins like the root's."""
    (tmp_path / "store").mkdir()
    (outside := tmp_path / target.removeprefix("../")).mkdir()
    (outside / "x").write_bytes(b"secret")
    (tmp_path / "store" / "units").symlink_to(target)
    for call in (
        lambda: local.objects.read("units/x"),
        lambda: local.objects.put("units/new", b"x"),
        lambda: local.objects.create("units/new", b"x"),
        lambda: local.objects.create("units/deep/new", b"x"),
        lambda: local.objects.delete("units/x"),
        lambda: local.objects.list("units"),
    ):
        with pytest.raises(OutsideStoreError):
            call()
    assert [path.name for path in outside.rglob("*")] == ["x"]


def test_a_root_may_be_a_link_and_links_within_it_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    objects = ObjectStore(str(tmp_path / "store"))
    assert objects.create("a/b", b"x")
    (tmp_path / "disk" / "c").symlink_to("a")
    assert objects.read("a/b") == objects.read("c/b") == b"x"
    assert objects.list("a") == ["a/b"]


def peak_of(call: object) -> int:
    """Bytes that Python takes at most while `call` fails."""
    tracemalloc.start()
    try:
        with pytest.raises(MemoragError):
            call()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_object_that_is_longer_than_it_should_be_takes_no_memory(store: CorpusStore) -> None:
    ref = store.blobs.put_bytes(b"text")
    store.objects.put(ref.key, b"text" * 5_000_000)
    for use in (store.blobs.get_bytes, store.blobs.get_json, store.blobs.open_file):
        # The in-memory backend's own copy does not count.
        assert peak_of(lambda use=use: use(ref, "documents/00000.parquet")) < 4_000_000
        with pytest.raises(
            CorruptBlobError, match=r"documents/00000.parquet: blob .* has (more than 4|20000000) bytes"
        ):
            use(ref, "documents/00000.parquet")
    assert store.blobs.problem(ref) == "has more than 4 bytes"


def test_a_size_that_is_a_lie_takes_no_memory(store: CorpusStore) -> None:
    """The manifest says terabytes, the store holds a word."""
    ref = store.blobs.put_bytes(b"text")
    lie = BlobRef(digest=ref.digest, size=1 << 45)
    for use in (store.blobs.get_bytes, store.blobs.get_json, store.blobs.get_table):
        assert peak_of(lambda use=use: use(lie)) < 4_000_000


def test_a_record_of_gigabytes_is_not_read(local: CorpusStore, tmp_path: Path) -> None:
    local.versions.publish(manifest_of(local, documents=b"text"), "run-1")
    record = tmp_path / "store" / "versions" / f"{1:020d}.json"
    os.truncate(record, 5 << 30)
    for use in (lambda: local.versions.record(1), lambda: local.versions.manifest(1)):
        assert peak_of(use) < LARGEST_RECORD * 2.5
        with pytest.raises(StorageError, match=f"has more than {LARGEST_RECORD} bytes, the most that it can have"):
            use()


@pytest.mark.parametrize("data", [b"[" * 200_000, b"{", b"\xff"])
def test_json_that_is_none_is_named(local: CorpusStore, data: bytes) -> None:
    with pytest.raises(CorruptBlobError, match=r"work list: blob .* is not JSON"):
        local.blobs.get_json(local.blobs.put_bytes(data), "work list")


def test_a_table_that_says_to_be_huge_is_not_read(local: CorpusStore, tmp_path: Path) -> None:
    """Ten million equal rows of a kilobyte take one megabyte in Parquet."""
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000_000, pa.int8()), pa.array(["x" * 1000]))
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    data = path.read_bytes()
    assert len(data) < 2_000_000
    taken = pa.total_allocated_bytes()
    for use in (lambda: open_table(path, "chunks"), lambda: local.blobs.get_table(local.blobs.put_bytes(data))):
        with pytest.raises(CorruptBlobError, match="that says to hold 10000000 rows"):
            use()
    assert pa.total_allocated_bytes() - taken < 1_000_000


@pytest.mark.parametrize(
    "data", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"no table at all", b"PAR1\xff\xff\xff\x7fPAR1"]
)
def test_a_table_that_is_none_is_named(local: CorpusStore, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "table").write_bytes(data)
    for use in (
        lambda: open_table(tmp_path / "table", "chunks/00000.parquet"),
        lambda: local.blobs.get_table(local.blobs.put_bytes(data), name="chunks/00000.parquet"),
    ):
        with pytest.raises(CorruptBlobError, match=r"chunks/00000.parquet: not a table in Parquet"):
            use()


def test_an_honest_table_of_repeated_text_is_read(local: CorpusStore) -> None:
    table = pa.table({"chunk_id": [bytes_digest(b"%d" % row) for row in range(2000)], "text": ["word " * 500] * 2000})
    assert local.blobs.get_table(local.blobs.put_table(table)) == table


@pytest.mark.models
def test_a_memory_whose_header_lies_is_refused(tmp_path: Path) -> None:
    from memorag_pipeline.memory.format import read_header

    header = json.dumps({"t": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    for name, data in (
        ("length", struct.pack("<Q", 1 << 60) + b"{}"),
        ("offsets", struct.pack("<Q", len(header)) + header + bytes(64)),
        ("nothing", b""),
    ):
        (tmp_path / name).write_bytes(data)
        assert peak_of(lambda name=name: read_header(tmp_path / name)) < 1_000_000
        with pytest.raises(CorruptBlobError, match=name):
            read_header(tmp_path / name)


@pytest.mark.models
def test_an_index_whose_vectors_are_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    import faiss
    import numpy as np

    from memorag_pipeline.retrieval.faiss_index import open_index

    index = faiss.index_factory(8, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(np.ones((4, 8), np.float32))
    data = bytearray(faiss.serialize_index(index).tobytes())
    length = data.index(struct.pack("<Q", 32))  # of the vector of codes, in floats
    data[length : length + 8] = struct.pack("<Q", 1 << 36)
    (tmp_path / "index").write_bytes(data)
    with pytest.raises(CorruptBlobError, match="not a Faiss index"):
        open_index(tmp_path / "index")
