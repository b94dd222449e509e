"""`refresh: delta` and `purge` from end to end: what memories have read, how stale they are, what is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load

from memorag_pipeline.jobs.answers.route import delta_shards, route_questions
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.runner import refresh
from memorag_pipeline.storage import Manifest
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.version import Version
from tests.fixtures.changing_corpus import MINILM, ChangingCorpus, document

DELTA = {"refresh": {"mode": "delta"}, "sharding": {"max_tokens": 1024, "min_tokens": 128}}
SECRET = "The secret of the flying saucer is kept in the cellar."


def edit(corpus: ChangingCorpus, name: str, day: int) -> None:
    corpus.write(name, corpus.read(name) + f"\nA sentence of day {day}.\n")


def manifest_of(pipeline: Pipeline, version: int) -> Manifest:
    return pipeline.store.versions.manifest(version)


def rows(pipeline: Pipeline, version: int, role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for blob in manifest_of(pipeline, version).of_role(role):
        found += pipeline.store.blobs.get_table(blob.ref).to_pylist()
    return found


def test_what_changed_goes_to_a_delta_shard_and_base_memories_stay(changing: ChangingCorpus) -> None:
    pipeline = changing.pipeline(**DELTA, embedding=MINILM)
    refresh(pipeline, "run-1")
    first = manifest_of(pipeline, 1)
    assert {(memory.kind, memory.stale_tokens) for memory in first.memories} == {("base", 0)}

    edit(changing, "a/04.md", 1)
    result = refresh(pipeline, "run-2")
    second = manifest_of(pipeline, 2)
    (delta,) = (memory for memory in second.memories if memory.kind == "delta")
    stale = [memory for memory in second.memories if memory.stale_tokens]
    assert len(stale) == 1 and 0 < stale[0].stale_share <= 0.2 and stale[0].kind == "base"
    opening = len(load_memory_model(pipeline.spec.memory, "en").stream.opening)
    assert result.counts["memorize"]["memorized_tokens"] == delta.tokens + opening
    old = {blob.path: blob.digest for blob in first.of_role("memory")}
    new = {blob.path: blob.digest for blob in second.of_role("memory")}
    assert new == old | {f"memories/{delta.shard_id}.safetensors": new[f"memories/{delta.shard_id}.safetensors"]}

    # The text that was changed is looked for in the shard that has read it, and every question goes there, too.
    places = {row["uri"].rsplit("/", 1)[1]: row["shard_id"] for row in rows(pipeline, 2, "sections")}
    assert places["04.md"] == delta.shard_id
    assert list(places.values()).count(delta.shard_id) == 1
    searcher = Version(pipeline.store, 2, trust_models=True).searcher
    (route,) = route_questions(searcher, ["What is the rule of statement number 9?"], 1, delta_shards(second))
    assert route == [places["09.md"], delta.shard_id]

    # The next change is appended to it: the memory equals that of reading both at once.
    edit(changing, "b/11.md", 2)
    result = refresh(pipeline, "run-3")
    (longer,) = (memory for memory in manifest_of(pipeline, 3).memories if memory.kind == "delta")
    assert longer.shard_id == delta.shard_id and longer.tokens > delta.tokens
    added = longer.tokens - delta.tokens
    assert result.counts["memorize"]["memorized_tokens"] < added + pipeline.spec.memory.window  # type: ignore[operator]
    model = load_memory_model(pipeline.spec.memory, "en")
    opened = Version(pipeline.store, 3, trust_models=True).memories()[longer.shard_id]
    path = changing.folder / "at-once"
    model.save(model.memorize(opened.token_ids.tolist()), path)
    (blob,) = (b for b in manifest_of(pipeline, 3).of_role("memory") if longer.shard_id in b.path)
    assert pipeline.store.blobs.put_file(path).digest == blob.digest

    # A document that changes again is stale in the delta shard.
    edit(changing, "b/11.md", 3)
    refresh(pipeline, "run-4")
    (delta,) = (memory for memory in manifest_of(pipeline, 4).memories if memory.kind == "delta")
    assert delta.stale_tokens > 0
    assert refresh(pipeline, "run-5").created is False


def test_a_shard_that_is_too_stale_is_read_again_with_the_documents_of_now(changing: ChangingCorpus) -> None:
    pipeline = changing.pipeline(**DELTA | {"refresh": {"mode": "delta", "max_stale": 0.05}})
    refresh(pipeline, "run-1")
    edit(changing, "a/04.md", 1)
    refresh(pipeline, "run-2")
    current = {row["content"] for row in rows(pipeline, 2, "sections")}
    assert {row["content"] for row in rows(pipeline, 2, "shards")} == current
    assert {(memory.kind, memory.stale_tokens) for memory in manifest_of(pipeline, 2).memories} == {("base", 0)}


def test_another_memory_model_or_a_lost_memory_makes_the_shards_anew(changing: ChangingCorpus) -> None:
    pipeline = changing.pipeline(**DELTA)
    refresh(pipeline, "run-1")
    edit(changing, "a/04.md", 1)
    refresh(pipeline, "run-2")
    (stale,) = (memory for memory in manifest_of(pipeline, 2).memories if memory.stale_tokens and memory.kind == "base")
    (blob,) = (b for b in manifest_of(pipeline, 2).of_role("memory") if stale.shard_id in b.path)
    pipeline.store.objects.delete(blob.ref.key)
    # What it was read from is in no document any more: it cannot be made again, so a new version takes its place.
    repaired = refresh(pipeline, "run-3")
    assert (repaired.version, repaired.created) == (3, True)
    assert not any(memory.stale_tokens for memory in manifest_of(pipeline, 3).memories if memory.kind == "base")

    other = changing.pipeline(**DELTA, memory={"window": 64})
    refresh(other, "run-4")
    assert {memory.kind for memory in manifest_of(other, 4).memories} == {"base"}


def test_a_small_refresh_asks_for_no_unit_that_the_parent_names(
    changing: ChangingCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = changing.pipeline()
    refresh(pipeline, "run-1")
    edit(changing, "a/04.md", 1)
    asked: list[str] = []
    find = type(pipeline.store.units).find

    def counted(units: Any, stage: str, fingerprint: str) -> Any:
        asked.append(stage)
        return find(units, stage, fingerprint)

    monkeypatch.setattr(type(pipeline.store.units), "find", counted)
    refresh(changing.pipeline(), "run-2")
    stages = {stage: asked.count(stage) for stage in set(asked)}
    assert len(manifest_of(pipeline, 1).of_role("documents")) > 3
    # Of the one part and the one shard that changed: by the plan, by the stage itself, and by the index.
    assert stages["memorize"] <= 4 and stages["embed"] <= 4 and stages["extract"] <= 8
    monkeypatch.undo()
    known = KnownUnits(pipeline, Parent(pipeline, 2, ()))
    assert known.parent is not None
    monkeypatch.setattr(type(pipeline.store.units), "find", lambda *_: pytest.fail("asked"))
    for row in known.parent.units:
        outcome = known.find(row["stage"], row["fingerprint"])
        assert outcome is not None and {ref.digest for ref in outcome.blobs.values()} <= {
            blob.digest for blob in known.parent.manifest.blobs
        }


def texts_of(pipeline: Pipeline, tokenizer: ChatTokenizer) -> Iterator[tuple[str, str]]:
    """Everything that can be read in the store: each object's key, with its bytes, columns and tokens as text."""
    for folder in ("blobs", "units", "versions", "channels", "intents", "retired"):
        for key in pipeline.store.objects.list(folder):
            data = pipeline.store.objects.read(key)
            yield key, data.decode("utf-8", "replace")
            if data.startswith(b"PAR1"):
                table = pq.read_table(pa.BufferReader(data))
                for name in table.column_names:
                    yield f"{key} {name}", json.dumps(table[name].to_pylist(), ensure_ascii=False, default=str)
            elif not data.startswith(b"{") and b"token_ids" in data[:100_000]:
                tensors = load(BytesIO(data).read())
                yield f"{key} tokens", tokenizer.text(tensors["token_ids"].tolist())


@pytest.mark.parametrize("mode", ["exact", "delta"])
def test_what_is_purged_is_in_no_blob_after_a_sweep(changing: ChangingCorpus, mode: str) -> None:
    tokenizer = ChatTokenizer(resolve("package:smollm2-135m-instruct").folder)
    spec: dict[str, Any] = {**DELTA, "refresh": {"mode": mode}}
    changing.write("a/secret.md", document(50) + f"\n{SECRET}\n")
    pipeline = changing.pipeline(**spec)
    refresh(pipeline, "run-1")
    changing.write("a/secret.md", document(51) + f"\n{SECRET}\nAnd a later word about it.\n")
    refresh(pipeline, "run-2")
    pipeline.store.channels.promote("production", 1, by="test", why="first")
    assert any(SECRET in text for _, text in texts_of(pipeline, tokenizer))
    assert any(SECRET in text for key, text in texts_of(pipeline, tokenizer) if key.endswith("tokens"))

    # It is still in the source, and is left out; an older version that a channel points to has to be replaced first.
    forgetful = changing.pipeline(**spec | {"refresh": {"mode": mode, "purge": ["**/secret.md"]}})
    third = refresh(forgetful, "run-3")
    assert (third.version, third.created) == (3, True)
    assert third.counts["shard"]["documents"] == 16
    assert forgetful.store.versions.retained() == [1, 3]
    note, waiting = third.notes
    assert "version 1" in note and "channel production" in note and "promote version 3" in note
    assert "version 2 is retired" in waiting
    forgetful.store.channels.promote("production", 3, by="test", why="purge")
    fourth = refresh(forgetful, "run-4")
    assert fourth.created is False
    (note,) = fourth.notes
    assert "version 1 is retired" in note and "may go from" in note
    assert forgetful.store.versions.retained() == [3]

    for _ in range(2):  # condemned by one sweep, deleted by the next
        sweep(forgetful.store, grace=timedelta(0))
    left = list(texts_of(forgetful, tokenizer))
    assert [key for key, text in left if "flying saucer" in text or "later word about it" in text] == []
    assert any("statement number 7" in text for key, text in left if key.endswith("tokens"))
    assert any("statement number 7" in text for key, text in left if key.endswith(" text"))
    assert refresh(forgetful, "run-5").created is False
