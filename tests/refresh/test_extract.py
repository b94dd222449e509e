"""Extraction: every document is a document row or a quarantine row, and unchanged documents are not read again."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from memorag_pipeline import schemas
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.digests import bytes_digest, text_digest
from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh import extract as extract_stage
from memorag_pipeline.refresh import extraction
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.plans import ExtractList
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef
from memorag_pipeline.storage.blobs import Blobs
from memorag_pipeline.storage.units import Units
from tests.corpus.documents import docx, pdf
from tests.fixtures.plain_bucket import plain_bucket
from tests.fixtures.s3 import S3Server
from tests.refresh.conftest import MakePipeline, Refreshed, refresh
from tests.storage.work_json import read_json

ONE_PART = {"documents_per_part": 100}
ROLES = ("inventory", "documents", "chunks", "quarantine", "shards")


def blobs(refreshed: Refreshed) -> dict[str, Any]:
    return {role: refreshed.plan[role] for role in ROLES}


def quarantined(refreshed: Refreshed) -> dict[str, str]:
    return {row["uri"].rsplit("/", 1)[-1]: row["reason"] for row in refreshed.rows("quarantine")}


def store_at(make_pipeline: MakePipeline, place: Path) -> Pipeline:
    return make_pipeline(store={"uri": str(place)})


def test_every_document_becomes_a_row_with_its_chunks(make_pipeline: MakePipeline, source: Path) -> None:
    refreshed = refresh(make_pipeline())
    documents, chunks = refreshed.rows("documents"), refreshed.rows("chunks")
    assert refreshed.plan["quarantine"] == []
    assert {row["uri"]: row["text"] for row in documents} == {
        f"file://{path}": path.read_text() for path in source.iterdir()
    }
    for row in documents:
        data = Path(row["uri"].removeprefix("file://")).read_bytes()
        assert (row["source_size"], row["source_digest"]) == (len(data), bytes_digest(data))
        assert (row["characters"], row["text_digest"]) == (len(row["text"]), text_digest(row["text"]))
        assert (row["language"], row["media_type"]) == ("en", "text/x-rst")
        assert row["tokens"] == sum(section["tokens"] for section in row["sections"])
        assert row["title"] == row["headings"][0]["text"]
        own = [chunk for chunk in chunks if chunk["document_id"] == row["document_id"]]
        assert [chunk["ordinal"] for chunk in own] == list(range(len(own)))
        assert all(row["text"][chunk["start"] : chunk["end"]] == chunk["text"] for chunk in own)
        assert {chunk["uri"] for chunk in own} == {row["uri"]}
    assert [row["uri"] for row in documents] == sorted(row["uri"] for row in documents)
    counts = refreshed.sharded["counts"]
    assert (counts["documents"], counts["chunks"]) == (len(documents), len(chunks)) == (12, counts["chunks"])


def test_tables_have_the_written_schemas(make_pipeline: MakePipeline, source: Path) -> None:
    (source / "empty.rst").write_text("")
    refreshed = refresh(make_pipeline())
    for role, schema in (
        ("documents", schemas.DOCUMENTS),
        ("chunks", schemas.CHUNKS),
        ("quarantine", schemas.QUARANTINE),
    ):
        for ref in refreshed.plan[role]:
            assert refreshed.pipeline.store.blobs.get_table(BlobRef(**ref)).schema.equals(schema)


def test_two_stores_get_the_same_blobs(make_pipeline: MakePipeline, tmp_path: Path, memory_folder: str) -> None:
    local = refresh(store_at(make_pipeline, tmp_path / "one"))
    memory = refresh(make_pipeline(store={"uri": memory_folder}))
    assert blobs(local) == blobs(memory)
    assert local.inventory["counts"] == memory.inventory["counts"]


def test_one_edit_extracts_one_document_and_gives_what_a_full_rebuild_gives(
    make_pipeline: MakePipeline, source: Path, tmp_path: Path
) -> None:
    (source / "empty.rst").write_text("  \n")
    pipeline = make_pipeline(source=ONE_PART)
    refresh(pipeline).publish()
    (source / "while.rst").write_text(topics["while"] + "\nAn added line.\n")
    edited = refresh(pipeline)
    assert edited.reused() == 12
    rebuilt = refresh(make_pipeline(source=ONE_PART, store={"uri": str(tmp_path / "rebuilt")}))
    assert blobs(edited) == blobs(rebuilt)


def test_a_removed_and_an_added_document_leave_the_others_unread(
    make_pipeline: MakePipeline, source: Path, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    refresh(pipeline).publish()
    (source / "if.rst").unlink()
    (source / "aaa.rst").write_text(topics["yield"])
    again = refresh(pipeline)
    objects = sum(
        len(part["objects"]) for uri in again.inventory["extract"] for part in read_json(pipeline, uri)["parts"]
    )
    assert again.reused() == objects - 1
    assert blobs(again) == blobs(refresh(store_at(make_pipeline, tmp_path / "rebuilt")))


def test_nothing_is_reused_when_the_spec_is_another(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    refresh(make_pipeline()).publish()
    other = {"chunking": {"max_tokens": 64}}
    again = refresh(make_pipeline(**other))
    assert again.reused() == 0
    assert blobs(again) == blobs(refresh(make_pipeline(**other, store={"uri": str(tmp_path / "rebuilt")})))


def test_rows_are_reused_when_the_spec_differs_in_another_stage(make_pipeline: MakePipeline, source: Path) -> None:
    refresh(make_pipeline(source=ONE_PART)).publish()
    (source / "if.rst").write_text("Other words.")
    assert refresh(make_pipeline(source=ONE_PART, index={"factory": "HNSW32"})).reused() == 11


def test_rows_of_an_older_stage_version_are_not_reused(
    make_pipeline: MakePipeline, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(make_pipeline(source=ONE_PART)).publish()
    (source / "if.rst").write_text("Other words.")
    monkeypatch.setattr(extraction, "STAGE_VERSION", extraction.STAGE_VERSION + 1)
    assert refresh(make_pipeline(source=ONE_PART)).reused() == 0


def test_a_touched_document_is_read_when_the_spec_is_another(make_pipeline: MakePipeline, source: Path) -> None:
    """Its inventory row keeps the old time, so its bytes must be compared, not its time."""
    refresh(make_pipeline()).publish()
    os.utime(source / "if.rst", (1, 1))
    again = refresh(make_pipeline(chunking={"max_tokens": 64}))
    assert again.plan["quarantine"] == [] and again.sharded["counts"]["documents"] == 12


def test_finished_parts_are_not_done_again(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline(compute={"units_per_task": 100})
    taken = take_inventory(pipeline)
    (batch,) = taken["extract"]
    first = extract(pipeline, batch)
    for path in source.iterdir():
        path.unlink()
    assert extract(pipeline, batch) == first


BAD = {
    "empty.txt": (b"", "empty"),
    "blank.txt": (b" \n\t\r\n", "empty"),
    "random.txt": (bytes(range(256)) * 40, "not_text"),
    "nul.txt": ("Gr\0ße".encode("cp1252"), "not_text"),
    "locked.pdf": (pdf("words", encrypted=True), "password"),
    "cut.pdf": (pdf("words")[:250], "unreadable"),
    "cut.docx": (docx(("words", "Normal"))[:-60], "unreadable"),
}


def test_documents_of_the_next_part_are_read_while_one_is_recorded(
    make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    seen = threading.Condition()
    read_bytes, put_table, begun = Source.read, Blobs.put_table, []

    def reading(source: Source, uri: str, limit: int) -> Any:
        with seen:
            read.append(uri)
            seen.notify_all()
        return read_bytes(source, uri, limit)

    def recording(store: Blobs, table: Any) -> Any:
        if not begun:
            begun.append("the first part")
            with seen:
                assert seen.wait_for(lambda: len(read) > parts[0], 20), "nothing is read ahead"
        return put_table(store, table)

    pipeline = make_pipeline(source={"documents_per_part": 2}, compute={"units_per_task": 100})
    (uri,) = take_inventory(pipeline)["extract"]
    parts = [len(part.objects) for part in pipeline.read_work(uri, ExtractList).units]
    assert len(parts) > 1
    monkeypatch.setattr(Source, "read", reading)
    monkeypatch.setattr(Blobs, "put_table", recording)
    monkeypatch.setattr(extract_stage, "TABLES", 1)  # documents read ahead
    assert extract(pipeline, uri)["documents"] == sum(parts) == len(read)


def test_a_store_that_fails_fails_the_part_whose_turn_it_is(
    make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline(source={"documents_per_part": 2}, compute={"units_per_task": 100})
    (uri,) = take_inventory(pipeline)["extract"]
    parts = pipeline.read_work(uri, ExtractList).units
    find = Units.find

    def finding(units: Units, stage: str, fingerprint: str) -> Any:
        if fingerprint == parts[1].fingerprint:
            raise StorageError("the store is closed")
        return find(units, stage, fingerprint)

    monkeypatch.setattr(Units, "find", finding)
    with pytest.raises(StorageError, match="is closed"):
        extract(pipeline, uri)
    monkeypatch.undo()
    found = pipeline.store.units.find_all(extraction.STAGE, [part.fingerprint for part in parts[:2]])
    assert found[0] is not None and found[1] is None


def test_bad_documents_are_quarantined_with_the_reason(make_pipeline: MakePipeline, source: Path) -> None:
    for name, (data, _) in BAD.items():
        (source / name).write_bytes(data)
    with (source / "huge.txt").open("wb") as file:
        file.truncate(200 << 20)
    (source / "one\nline.txt").write_bytes(b"\x01" * 100)
    pipeline = make_pipeline(source={"include": ["**"]})
    refreshed = refresh(pipeline)
    expected = {name: reason for name, (_, reason) in BAD.items()}
    assert quarantined(refreshed) == {**expected, "huge.txt": "too_large", "one\nline.txt": "not_text"}
    for row in refreshed.rows("quarantine"):
        assert row["detail"] and "\n" not in row["detail"]
        data = None if row["reason"] == "too_large" else Path(row["uri"].removeprefix("file://")).read_bytes()
        assert row["source_digest"] == (None if data is None else bytes_digest(data))
    assert refreshed.sharded["counts"]["documents"] == 12
    assert (
        refreshed.sharded["counts"]["quarantined"] == sum(counts["quarantined"] for counts in refreshed.extracted) == 9
    )
    refreshed.publish()
    assert not take_inventory(pipeline)["changed"]


def test_quarantine_says_what_to_do(make_pipeline: MakePipeline, source: Path) -> None:
    (source / "locked.rst").write_bytes(pdf("words", encrypted=True))
    (row,) = refresh(make_pipeline()).rows("quarantine")
    assert (row["reason"], row["advice"]) == ("password", "Store a copy without a password.")


def test_a_document_that_recovers_leaves_the_quarantine(make_pipeline: MakePipeline, source: Path) -> None:
    bad = {"cut.docx": docx(("words", "Normal"))[:-60], "scan.pdf": pdf(""), "a.gz": gzip.compress(b"words" * 99)[:-9]}
    for name, data in bad.items():
        (source / name).write_bytes(data)
    pipeline = make_pipeline(source={"include": ["**"]})
    first = refresh(pipeline)
    assert set(quarantined(first)) == set(bad)
    first.publish()
    (source / "cut.docx").write_bytes(docx(("words", "Normal")))
    (source / "scan.pdf").write_bytes(pdf("recognised words"))
    second = refresh(pipeline)
    assert set(quarantined(second)) == {"a.gz"} and second.sharded["counts"]["documents"] == 14
    second.publish()
    raised = make_pipeline(source={"include": ["**"], "exclude": ["*.gz"]})
    assert quarantined(refresh(raised)) == {}


def test_limits_of_the_spec_hold_and_a_higher_one_lets_documents_in(make_pipeline: MakePipeline, source: Path) -> None:
    (source / "long.pdf").write_bytes(pdf("words", pages=3))
    (source / "bomb.txt.gz").write_bytes(gzip.compress(b"a line\n" * 300_000))
    limits = {"include": ["*.pdf", "*.gz"], "max_pages": 2}
    first = refresh(make_pipeline(source={**limits, "include": ["**"]}))
    assert quarantined(first) == {"long.pdf": "too_many_pages", "bomb.txt.gz": "bomb"}
    first.publish()
    assert quarantined(refresh(make_pipeline(source={"include": ["**"], "max_pages": 3, "max_expansion": 2000}))) == {}


def test_copies_have_all_their_names(make_pipeline: MakePipeline, source: Path) -> None:
    for name in ("one.html", "two.html", "three.htm"):
        (source / name).write_text("<p>" + topics["lambda"])
    refreshed = refresh(make_pipeline(source={"include": ["*.htm*"], **ONE_PART}))
    rows = {row["uri"].rsplit("/", 1)[-1]: row for row in refreshed.rows("documents")}
    assert set(rows) == {"one.html", "two.html", "three.htm"}
    assert len({row["text_digest"] for row in rows.values()}) == 1
    assert rows["two.html"]["title"] == "two"
    chunks = refreshed.rows("chunks")
    assert len({chunk["digest"] for chunk in chunks}) * 3 == len({chunk["chunk_id"] for chunk in chunks})
    assert len(refreshed.plan["embeddings"]) == 1


def test_records_are_documents(make_pipeline: MakePipeline, source: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"p {i}", "title": f"Page {i}", "body": f"Words of page {i}."}) for i in range(3)]
    (source / "pages.jsonl").write_text("\n".join([*lines, "{broken"]))
    (source / "scan.jsonl").write_bytes(pdf("no records"))
    records = {"include": ["*.jsonl"], "text": ["body"], "title": "title", "id": "id"}
    pipeline = make_pipeline(source={"include": ["**"], "records": records, **ONE_PART})
    first = refresh(pipeline)
    pages = [row for row in first.rows("documents") if "pages.jsonl" in row["uri"]]
    uri = f"file://{source}/pages.jsonl"
    assert [(row["uri"], row["title"], row["text"]) for row in pages] == [
        (f"{uri}#p%20{i}", f"Page {i}", f"Words of page {i}.") for i in range(3)
    ]
    assert {row["uri"] for row in first.rows("shards")} >= {row["uri"] for row in pages}
    assert quarantined(first) == {"pages.jsonl#3": "bad_record", "scan.jsonl": "unreadable"}
    first.publish()
    os.utime(source / "pages.jsonl", (1, 1))
    assert not take_inventory(pipeline)["changed"]
    (source / "pages.jsonl").write_text("\n".join(lines[1:]))
    second = refresh(pipeline)
    assert second.reused() == 13  # all but these pages
    rebuilt = make_pipeline(
        source={"include": ["**"], "records": records, **ONE_PART}, store={"uri": str(tmp_path / "rebuilt")}
    )
    assert blobs(second) == blobs(refresh(rebuilt))
    assert len(second.rows("documents")) == 14


def test_records_of_a_file_that_did_not_change_are_kept(make_pipeline: MakePipeline, source: Path) -> None:
    rows = "\n".join(["id,body", "1,One.", "2,Two.", "3,", "a b/#,Three."])
    for name in ("one.csv", "two.csv", "one.csv#notes.csv"):
        (source / name).write_text(rows)
    records = {"include": ["*.csv"], "text": ["body"], "id": "id"}
    pipeline = make_pipeline(source={"include": ["**"], "records": records, **ONE_PART})
    first = refresh(pipeline)
    assert quarantined(first) == {f"{name}#3": "bad_record" for name in ("one.csv", "two.csv", "one.csv#notes.csv")}
    first.publish()
    os.utime(source / "two.csv", (1, 1))
    (source / "if.rst").write_text("Other words.")
    second = refresh(pipeline)
    assert second.reused() == 14
    for role in ("documents", "chunks", "quarantine"):
        kept = [[row for row in refreshed.rows(role) if "if.rst" not in row["uri"]] for refreshed in (first, second)]
        assert kept[0] == kept[1]


def test_a_document_that_is_too_large_is_not_read(
    make_pipeline: MakePipeline, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = Source.read
    monkeypatch.setattr(Source, "read", lambda self, uri, limit: read.append(uri) or original(self, uri, limit))
    (source / "large.rst").write_text("word " * 1000)
    refreshed = refresh(make_pipeline(source={"max_document_mb": 0.004}))
    assert quarantined(refreshed)["large.rst"] == "too_large"
    assert read and not any(uri.endswith("large.rst") for uri in read)


def test_a_document_that_does_harm_costs_itself_and_is_tried_again(make_pipeline: MakePipeline, source: Path) -> None:
    deep = '{"a":' * 450 + '"x"' + "}" * 450
    (source / "deep.jsonl").write_text(f'{{"a": "Words."}}\n{deep}\n')
    # Quotes within quotes: minutes of cutting and joining. The others take milliseconds.
    (source / "quotes.md").write_text("Words.\n\n" + ">" * 2_000_000)
    records = {"include": ["*.jsonl"], "text": ["a"]}
    pipeline = make_pipeline(source={"include": ["**"], "timeout_seconds": 4, "records": records, **ONE_PART})
    first = refresh(pipeline)
    assert quarantined(first) == {"deep.jsonl#1": "bad_record", "quotes.md": "timeout"}
    assert first.sharded["counts"]["documents"] == 13
    (row,) = (row for row in first.rows("quarantine") if row["reason"] == "timeout")
    assert "cutting it into chunks took longer than" in row["detail"]
    assert "source.timeout_seconds" in row["advice"]
    first.publish()
    again = take_inventory(pipeline)
    assert again["changed"] and len(again["extract"]) == 1
    (source / "quotes.md").write_text("few words")
    assert quarantined(refresh(pipeline)) == {"deep.jsonl#1": "bad_record"}


def test_a_document_that_is_gone_is_quarantined_until_it_is_back(
    make_pipeline: MakePipeline, memory_folder: str
) -> None:
    filesystem = MemoryFileSystem()
    for name in ("if", "while", "for"):
        filesystem.pipe_file(f"{memory_folder}/{name}.rst", topics[name].encode())
    pipeline = make_pipeline(memory_folder)
    taken = take_inventory(pipeline)
    gone = next(path for path in filesystem.store if path.endswith("/if.rst"))
    document = filesystem.store.pop(gone)
    assert sum(extract(pipeline, uri)["quarantined"] for uri in taken["extract"]) == 1
    filesystem.store[gone] = document
    again = refresh(pipeline)
    assert again.inventory["plan"] == taken["plan"]
    assert again.plan["quarantine"] == [] and again.sharded["counts"]["documents"] == 3


def test_a_document_that_can_never_be_read_is_asked_for_once_a_refresh(make_pipeline: MakePipeline) -> None:
    """It costs no other document of its part a request, and nothing is published for it again."""
    with plain_bucket() as bucket:
        bucket.objects = {f"{name}.rst": topics[name].encode() for name in ("if", "while", "for", "with")}
        bucket.objects["rows.jsonl"] = b'{"a": "Words."}\n{"a": "Other words."}\n'
        bucket.missing = {"for.rst"}
        include = {"include": ["**"], "records": {"include": ["*.jsonl"]}, **ONE_PART}
        pipeline = make_pipeline(f"s3://{bucket.name}", source={**include, "storage_options": bucket.options})
        first = refresh(pipeline)
        assert quarantined(first) == {"for.rst": "download_failed"}
        assert sorted(bucket.read) == sorted(bucket.objects)

        bucket.read = []
        again = refresh(pipeline)  # of a run that ended before it could publish
        assert (bucket.read, again.reused(), blobs(again)) == (["for.rst"], 4, blobs(first))

        assert first.publish() == 1
        bucket.read = []
        again = refresh(pipeline)
        assert (bucket.read, blobs(again)) == (["for.rst"], blobs(first))
        assert again.publish() == 1

        bucket.missing = set()
        mended = refresh(pipeline)
        assert bucket.read == ["for.rst"] * 2 and quarantined(mended) == {}
        assert mended.sharded["counts"]["documents"] == 6


def test_a_document_that_changed_since_it_was_listed_is_left_to_the_next_refresh(
    make_pipeline: MakePipeline, source: Path
) -> None:
    pipeline = make_pipeline(compute={"units_per_task": 100})
    taken = take_inventory(pipeline)
    (source / "if.rst").write_text("Other words.")
    counts = extract(pipeline, taken["extract"][0])
    assert counts["quarantined"] == 1
    again = refresh(pipeline)
    texts = {row["uri"].rsplit("/", 1)[-1]: row["text"] for row in again.rows("documents")}
    assert texts["if.rst"] == "Other words." and len(texts) == 12


def test_a_lost_source_is_an_error_and_no_quarantine(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline()
    taken = take_inventory(pipeline)
    source.rename(source.with_name("elsewhere"))
    with pytest.raises(StorageError, match="no such bucket or folder"):
        extract(pipeline, taken["extract"][0])


def test_an_altered_parent_is_named(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline(source=ONE_PART)
    first = refresh(pipeline)
    first.publish()
    for ref in first.plan["documents"]:
        path = Path(pipeline.store.blobs.uri(BlobRef(**ref)).removeprefix("file://"))
        path.write_bytes(b"x" * ref["size"])
    (source / "if.rst").write_text("Other words.")
    taken = take_inventory(pipeline)
    with pytest.raises(CorruptBlobError, match=r"documents/0000\d\.parquet of version 1"):
        extract(pipeline, taken["extract"][0])


def test_chinese_text_in_an_old_encoding(make_pipeline: MakePipeline, source: Path) -> None:
    text = "人民共和国的各族人民共同创造了光辉灿烂的文化，具有光荣的革命传统。" * 5  # noqa: RUF001
    (source / "zh.txt").write_bytes(text.encode("gb18030"))
    refreshed = refresh(make_pipeline(language="zh", source={"include": ["*.txt"]}))
    (row,) = refreshed.rows("documents")
    assert (row["text"], row["language"]) == (text, "zh")


def test_a_source_on_s3(make_pipeline: MakePipeline, s3_server: S3Server, memory_folder: str) -> None:
    bucket, options = s3_server.new_bucket(), s3_server.options()
    filesystem = fsspec.filesystem("s3", **options)
    for name in ("if", "while", "for", "try", "with"):
        filesystem.pipe_file(f"{bucket}/kb/{name} #1.rst", topics[name].encode())
    place = {"uris": [f"s3://{bucket}/kb"], "storage_options": options, **ONE_PART}
    pipeline = make_pipeline(source=place, store={"uri": memory_folder})
    first = refresh(pipeline)
    assert {row["text"] for row in first.rows("documents")} == {
        topics[name] for name in ("if", "while", "for", "try", "with")
    }
    first.publish()
    filesystem.pipe_file(f"{bucket}/kb/if #1.rst", b"Other words.")
    filesystem.pipe_file(f"{bucket}/kb/for #1.rst", topics["for"].encode())  # again, the same
    again = refresh(pipeline)
    assert again.inventory["counts"] == {"documents": 5, "added": 0, "changed": 1, "removed": 0, "unchanged": 4}
    assert again.reused() == 4
    assert b"secret" not in str(first.plan).lower().encode() and options["secret"] not in str(first.plan)


def test_overlapping_sources_give_each_document_once(make_pipeline: MakePipeline, source: Path) -> None:
    refreshed = refresh(make_pipeline(source={"uris": [str(source), f"file://{source}/if.rst"]}))
    assert refreshed.sharded["counts"]["documents"] == 12


def test_a_small_embedding_window_bounds_the_chunks(make_spec: Any, source: Path, tmp_path: Path) -> None:
    """The model's own two tokens must fit in addition to those of the chunk."""
    spec: CorpusSpec = make_spec(
        source,
        chunking={"max_tokens": 64},
        embedding={"model": "package:all-minilm-l6-v2", "pooling": "mean", "max_tokens": 64},
    )
    refreshed = refresh(Pipeline(spec))
    assert max(chunk["tokens"] for chunk in refreshed.rows("chunks")) <= 62
