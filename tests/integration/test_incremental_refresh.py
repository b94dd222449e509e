"""A refresh costs what the change costs, and its version is that of a full rebuild, blob for blob."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs

from memorag_pipeline.memory.kinds import beacon
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.shard import plan_shards
from memorag_pipeline.runner import RefreshResult, refresh
from memorag_pipeline.storage import Manifest, ObjectStore
from memorag_pipeline.storage.diff import diff
from tests.conftest import REPOSITORY
from tests.fixtures.changing_corpus import ChangingCorpus, document
from tests.fixtures.s3 import S3Server

ADAPTER = REPOSITORY.parent / "shared" / "adapter" / "smollm2-135m-beacon-r4.bf16.safetensors"


def manifest_of(pipeline: Pipeline, result: RefreshResult) -> Manifest:
    return pipeline.store.versions.manifest(result.version)


def same_as_rebuilt(corpus: ChangingCorpus, name: str, result: RefreshResult, **sections: Any) -> RefreshResult:
    """Rebuild in a fresh store and hold the versions against each other; the rebuild's result."""
    rebuilt = corpus.pipeline(name, **sections)
    full = refresh(rebuilt, "full")
    mine, other = manifest_of(corpus.pipeline(**sections), result), manifest_of(rebuilt, full)
    assert {blob.path: blob.digest for blob in mine.blobs} == {blob.path: blob.digest for blob in other.blobs}
    assert mine.model_copy(update={"parent": None}) == other
    return full


def stored(pipeline: Pipeline) -> set[str]:
    """The keys of all that a refresh may write."""
    return {key for folder in ("blobs", "units", "versions") for key in pipeline.store.objects.list(folder)}


def change_everything_once(corpus: ChangingCorpus) -> int:
    """An edit, an insertion, a removal, a new document, a renamed one, and text that moves; how many must be read."""
    corpus.write("a/04.md", corpus.read("a/04.md").replace("has rule 4", "has no rule 4"))
    corpus.write("b/07.md", corpus.read("b/07.md").replace("\n\n", "\n\nA sentence that was not there.\n\n", 1))
    corpus.remove("a/10.md")
    corpus.write("a/05x.md", document(99))
    corpus.rename("b/01.md", "c/first.md")
    return 4


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"kind": "selected", "ratio": 4},
        {"kind": "gist", "reproducible": True, "window": 128},  # fewer texts to write
        {"codec": "int8"},
        {"kind": "beacon", "ratio": [2, 4]},
    ],
    ids=str,
)
def test_an_incremental_refresh_equals_a_full_rebuild_and_reads_only_what_changed(
    changing: ChangingCorpus, source_reads: list[str], memory: dict[str, Any]
) -> None:
    pipeline = changing.pipeline(memory=memory)
    first = refresh(pipeline, "run-1")
    assert len(source_reads) == 16
    source_reads.clear()

    must_read = change_everything_once(changing)
    second = refresh(pipeline, "run-2")
    assert len(source_reads) == must_read
    assert second.counts["extract"]["reused"] >= second.counts["extract"]["documents"] - must_read
    # The edit touched one chunk, the insertion at most two; the new document adds its own.
    assert second.counts["embed"]["embedded"] <= 3 + first.counts["index"]["vectors"] / 16 + 1
    changed = diff(pipeline.store, 1, 2).memories
    assert len(changed.added) + len(changed.changed) < len(manifest_of(pipeline, first).memories)
    full = same_as_rebuilt(changing, "rebuilt", second, memory=memory)
    # A memory stored in fewer bits is not continued: it would not give the same memory.
    assert (second.counts["memorize"]["reused_tokens"] > 0) == ("codec" not in memory)
    assert full.counts["memorize"]["reused_tokens"] == 0


def test_a_shard_is_memorized_from_the_window_of_its_first_changed_token_on(changing: ChangingCorpus) -> None:
    pipeline = changing.pipeline(sharding={"max_tokens": 1800, "min_tokens": 64})
    refresh(pipeline, "run-1")
    shards = pipeline.store.blobs.get_table(manifest_of(pipeline, refresh(pipeline, "run-2")).of_role("shards")[0].ref)
    rows = [row for row in shards.to_pylist() if row["shard_id"] == shards["shard_id"][-1].as_py()]
    last = rows[-1]
    name = "/".join(last["uri"].split("/")[-2:])
    changing.write(name, changing.read(name) + "\nOne more sentence at the end.\n")
    result = refresh(pipeline, "run-3")
    before_the_change = sum(row["tokens"] for row in rows)
    assert len(rows) > 2
    # The last window of the old stream, and the sentence; the opening of the stream is not in the table.
    assert result.counts["memorize"]["memorized_tokens"] <= 32 + 12 < before_the_change
    same_as_rebuilt(changing, "rebuilt", result, sharding={"max_tokens": 1800, "min_tokens": 64})


def test_the_manifest_says_where_each_memory_was_made(
    changing: ChangingCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = changing.pipeline()
    monkeypatch.setattr(beacon, "made_on", lambda device, reproducible: "one machine")
    first = manifest_of(pipeline, refresh(pipeline, "run-1"))
    assert {memory.made_on for memory in first.memories} == {"one machine"}
    monkeypatch.setattr(beacon, "made_on", lambda device, reproducible: "another")
    changing.write("b/07.md", changing.read("b/07.md") + "\nOne more sentence at the end.\n")
    second = manifest_of(pipeline, refresh(pipeline, "run-2"))
    kept = {memory.shard_id for memory in second.memories if memory.made_on == "one machine"}
    changed = {memory.made_on for memory in second.memories if memory.shard_id not in kept}
    assert kept
    assert changed == {"one machine; then another"}


@pytest.mark.skipif(not ADAPTER.exists(), reason="no trained adapter beside the repository")
def test_trained_beacons_of_an_incremental_refresh_equal_a_full_rebuild(changing: ChangingCorpus) -> None:
    for number in range(3, 16):
        changing.remove(f"{'ab'[number % 2]}/{number:02d}.md")
    memory = {"kind": "beacon", "model": "package:smollm2-135m-instruct", "adapter": str(ADAPTER), "dtype": "float32"}
    memory |= {"window": 64, "ratio": 4}
    pipeline = changing.pipeline(memory=memory)
    refresh(pipeline, "run-1")
    changing.write("b/01.md", changing.read("b/01.md") + "\nOne more sentence.\n")
    second = refresh(pipeline, "run-2")
    assert second.counts["memorize"]["reused_tokens"] > 0
    same_as_rebuilt(changing, "rebuilt", second, memory=memory)


def test_text_that_moves_and_documents_that_are_renamed_are_not_embedded_nor_memorized_again(
    changing: ChangingCorpus,
) -> None:
    pipeline = changing.pipeline()
    refresh(pipeline, "run-1")
    text = changing.read("a/02.md")
    changing.remove("a/02.md")
    changing.write("a/02-other-name.md", text)
    second = refresh(pipeline, "run-2")
    assert second.counts["embed"].get("embedded", 0) == 0
    assert second.counts["memorize"] == {}
    same_as_rebuilt(changing, "renamed", second)

    # A sentence moves to another document: its chunk and a neighbor may be cut elsewhere, the rest is known.
    moved = text.split("\n\n")[-1]
    changing.write("a/02-other-name.md", text.replace(moved, ""))
    changing.write("z/new.md", moved)
    third = refresh(pipeline, "run-3")
    assert third.counts["embed"]["embedded"] <= 3


def test_a_folder_that_is_renamed_memorizes_only_the_shards_at_its_borders(changing: ChangingCorpus) -> None:
    for number in range(16, 48):
        changing.write(f"b/{number:02d}.md", document(number))
    pipeline = changing.pipeline()
    first = refresh(pipeline, "run-1")
    (changing.folder / "source" / "b").rename(changing.folder / "source" / "bb")
    second = refresh(pipeline, "run-2")
    assert second.counts["inventory"]["added"] == second.counts["inventory"]["removed"] == 40
    assert second.counts["memorize"] == {}
    assert second.counts["embed"].get("embedded", 0) == 0
    assert len(manifest_of(pipeline, first).memories) > 4
    assert {blob.digest for blob in manifest_of(pipeline, second).of_role("memory")} == {
        blob.digest for blob in manifest_of(pipeline, first).of_role("memory")
    }


def test_an_unchanged_corpus_makes_no_version_and_no_task(changing: ChangingCorpus, source_reads: list[str]) -> None:
    pipeline = changing.pipeline()
    refresh(pipeline, "run-1")
    source_reads.clear()
    keys = stored(pipeline)
    taken = take_inventory(pipeline)
    assert (taken["changed"], taken["extract"]) == (False, [])
    again = refresh(pipeline, "run-2")
    assert (again.version, again.created, again.changed, list(again.counts)) == (1, False, False, ["inventory"])
    assert source_reads == []
    assert len(stored(pipeline) - keys) <= 1  # the plan of the inventory


def test_the_requests_of_a_refresh_do_not_grow_with_the_corpus(
    changing: ChangingCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an unchanged one, and of one edit: what the store is asked for, publishing aside, which checks its blobs."""
    asked: list[str] = []
    attempt = ObjectStore._attempt

    def counted(objects: ObjectStore, action: str, key: str, call: Any) -> Any:
        asked.append(f"{action} {key}")
        return attempt(objects, action, key, call)

    def requests(stage: Callable[[Pipeline], Any]) -> int:
        asked.clear()
        with monkeypatch.context() as patched:
            patched.setattr(ObjectStore, "_attempt", counted)
            stage(changing.pipeline(source={"documents_per_part": 2}))
        return len(set(asked))  # a listing is taken one object after the other

    def edit_and_plan(pipeline: Pipeline) -> None:
        inventory = take_inventory(pipeline)
        for uri in inventory["extract"]:
            extract(pipeline, uri)
        plan_shards(pipeline, inventory["plan"])

    found = []
    for numbers in (range(0), range(16, 80)):
        for number in numbers:
            changing.write(f"c/{number:02d}.md", document(number))
        refresh(changing.pipeline(source={"documents_per_part": 2}), "run")
        unchanged = requests(take_inventory)
        changing.write("a/04.md", changing.read("a/04.md") + "\nOne more sentence.\n")
        found.append((unchanged, requests(edit_and_plan)))
    assert found[1][0] <= found[0][0] + 1
    assert found[1][1] <= found[0][1] + 6  # if a part with other documents is next to the changed one


def test_a_lost_table_is_made_anew(changing: ChangingCorpus) -> None:
    pipeline = changing.pipeline()
    first = refresh(pipeline, "run-1")
    manifest = manifest_of(pipeline, first)
    for role in ("units", "sections", "shards"):
        pipeline.store.objects.delete(manifest.of_role(role)[0].ref.key)
    again = refresh(pipeline, "run-2")
    assert (again.version, again.created, again.changed) == (1, False, True)
    assert pipeline.store.versions.missing(manifest) == []


def test_nothing_is_downloaded_twice_from_s3(
    s3_server: S3Server,
    changing: ChangingCorpus,
    source_reads: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3_server.new_bucket()
    s3 = s3fs.S3FileSystem(**s3_server.options())
    for path in sorted((changing.folder / "source").rglob("*.md")):
        s3.pipe_file(f"{bucket}/docs/{path.name}", path.read_bytes())
    options = s3_server.options()
    pipeline = changing.pipeline(
        source={"uris": [f"s3://{bucket}/docs"], "storage_options": options},
        store={"uri": f"s3://{bucket}/kb", "storage_options": options},
    )
    monkeypatch.setattr(pipeline.store.blobs._cache, "_folder", tmp_path / "cache")
    refresh(pipeline, "run-1")
    assert len(source_reads) == 16
    source_reads.clear()
    s3.pipe_file(f"{bucket}/docs/03.md", s3.cat_file(f"{bucket}/docs/03.md") + b"\nOne more sentence.\n")
    s3.pipe_file(f"{bucket}/docs/04.md", s3.cat_file(f"{bucket}/docs/04.md"))  # the same bytes, the same etag
    result = refresh(pipeline, "run-2")
    assert (result.version, result.created) == (2, True)
    assert source_reads == [f"s3://{bucket}/docs/03.md"]
    assert result.counts["embed"]["embedded"] <= 2
