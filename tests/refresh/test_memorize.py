"""The stage memorize: several shards at a time, resumed by unit, incremental by window, with progress in tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
import torch

from memorag_pipeline import progress
from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import ContextLengthError, StorageError
from memorag_pipeline.machine.retry_share import share_of_attempt
from memorag_pipeline.memory.engine.reader import read
from memorag_pipeline.memory.format import read_header
from memorag_pipeline.memory.kinds.beacon import WindowedMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.memorize import STAGE, memorize
from memorag_pipeline.runs import tasks
from memorag_pipeline.schemas import DOCUMENTS
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import Manifest, ManifestBlob, Outcome
from memorag_pipeline.storage.blobs import Blobs
from tests.memory.conftest import MakeFolder, tiny_folder
from tests.storage.work_json import read_json, write_json

__all__ = ["tiny_folder"]

WINDOW = 32
TEXTS = {
    "a": "The lambda expression makes an anonymous function. " * 6,
    "b": "The pass statement does nothing when it is executed. " * 6,
    "c": "The break statement ends the nearest enclosing loop. " * 6,
}


MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(tmp_path: Path, tiny_folder: MakeFolder, make_spec: Callable[..., CorpusSpec]) -> MakePipeline:
    """A pipeline with small memories of kind full; keyword arguments change section memory."""

    def make(**changes: Any) -> Pipeline:
        memory = {"kind": "full", "model": str(tiny_folder("llama")), "window": WINDOW, "dtype": "float32"}
        return Pipeline(make_spec(tmp_path, memory=memory | changes))

    return make


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Pipeline:
    return make_pipeline()


def work_list(pipeline: Pipeline, shards: Sequence[Sequence[str]], texts: dict[str, str], parent: int | None) -> str:
    """The work list of shards, each of some of the documents in `texts`."""
    rows = [
        {field.name: [] if pa.types.is_list(field.type) else 0 if pa.types.is_integer(field.type) else ""
         for field in DOCUMENTS} | {"document_id": name, "uri": f"file:///docs/{name}.txt", "title": name, "text": text}
        for name, text in texts.items()
    ]  # fmt: skip
    part = pipeline.store.blobs.put_table(pa.Table.from_pylist(rows, schema=DOCUMENTS)).model_dump()
    units = [
        {
            "shard_id": names[0],
            "fingerprint": value_digest([[name, texts[name]] for name in names]),
            "tokens": 1,
            "base": names[0],
            "continues": False,
            "sections": [{"document_id": name, "start": 0, "end": len(texts[name])} for name in names],
            "documents": [part],
        }
        for names in shards
    ]
    return write_json(pipeline, {"parent": parent, "lost": [], "units": units})


def outcomes(pipeline: Pipeline, batch: str) -> dict[str, Outcome]:
    """Outcomes by shard."""
    found = {}
    for unit in read_json(pipeline, batch)["units"]:
        outcome = pipeline.store.units.find(STAGE, unit["fingerprint"])
        assert outcome is not None
        found[unit["shard_id"]] = outcome
    return found


def publish(pipeline: Pipeline, memories: dict[str, Outcome], **changes: Any) -> int:
    """A version that holds the memories."""
    blobs = [
        ManifestBlob(role="memory", path=f"memories/{shard}.safetensors", **outcome.blobs["memory"].model_dump())
        for shard, outcome in memories.items()
    ]
    manifest = Manifest(
        corpus="topics",
        language="en",
        parent=None,
        spec_fingerprint="0",
        spec={},
        models=(),
        blobs=tuple(blobs),
        counts={},
    )
    return pipeline.store.versions.publish(manifest.model_copy(update=changes), "test").version


def test_a_memory_holds_opening_and_sections(pipeline: Pipeline) -> None:
    batch = work_list(pipeline, [["a", "b"], ["c"]], TEXTS, None)
    result = memorize(pipeline, batch)
    model = load_memory_model(pipeline.spec.memory, "en")
    for shard, names in (("a", "ab"), ("c", "c")):
        outcome = outcomes(pipeline, batch)[shard]
        stream = [*model.stream.opening]
        for name in names:
            stream += model.stream.section(f"file:///docs/{name}.txt", name, TEXTS[name])
        opened = model.open(pipeline.store.blobs.open_file(outcome.blobs["memory"]))
        assert opened.token_ids.tolist() == stream
        assert outcome.counts == {"tokens": len(stream), "memorized_tokens": len(stream), "reused_tokens": 0}
    assert result["shards"] == 2
    assert (
        result["tokens"]
        == result["memorized_tokens"]
        == sum(o.counts["tokens"] for o in outcomes(pipeline, batch).values())
    )
    assert result["reused_tokens"] == 0
    assert result["seconds"] > 0


@pytest.mark.parametrize("memory", [{}, {"kind": "beacon", "ratio": 4}], ids=str)
def test_a_shard_is_the_same_alone_and_with_others(
    make_pipeline: MakePipeline, memory: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = make_pipeline(**memory)
    batch = work_list(pipeline, [["a", "b"], ["c"]], TEXTS, None)
    memorize(pipeline, batch)
    model = load_memory_model(pipeline.spec.memory, "en")
    for shard, outcome in outcomes(pipeline, batch).items():
        opened = model.open(pipeline.store.blobs.open_file(outcome.blobs["memory"]))
        alone = model.memorize(opened.token_ids.tolist())
        assert alone.window_digests == opened.window_digests
        for one, other in zip((*alone.keys, *alone.values), (*opened.keys, *opened.values), strict=True):
            torch.testing.assert_close(one, other, msg=shard)


def test_shards_are_read_together_within_bounds_and_recorded_one_by_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    extend_many = WindowedMemoryModel.extend_many

    def spy(model: Any, memories: Sequence[Any], token_ids: Sequence[Any], *rest: Any) -> list[Any]:
        read.append(len(memories))
        if len(read) == fails_at:
            raise KeyboardInterrupt
        return extend_many(model, memories, token_ids, *rest)

    monkeypatch.setattr(WindowedMemoryModel, "extend_many", spy)
    monkeypatch.setattr("memorag_pipeline.machine.read_together._ITEMS", 2)
    texts = {str(number): f"Document {number}. " * 4 for number in range(5)}
    batch = work_list(pipeline, [[name] for name in texts], texts, None)
    fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        memorize(pipeline, batch)
    fails_at = 0
    result = memorize(pipeline, batch)
    assert read == [2, 2, 2, 1]
    found = outcomes(pipeline, batch).values()
    assert result["tokens"] == sum(outcome.counts["tokens"] for outcome in found)
    assert all(outcome.seconds > 0 for outcome in found)

    monkeypatch.setattr("memorag_pipeline.machine.read_together._TOKENS", 1)
    read.clear()
    memorize(pipeline, work_list(pipeline, [["a"], ["b"], ["c"]], TEXTS, None))
    assert read == [1, 1, 1]


def test_a_second_attempt_reads_half_as_much_together_and_makes_the_same(
    make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int] = []

    def spy(network: Any, readings: Sequence[Any], budget: int, advance: Any, **rest: Any) -> None:
        budgets.append(budget)
        read(network, readings, budget, advance, **rest)

    monkeypatch.setattr("memorag_pipeline.memory.kinds.beacon.read", spy)
    monkeypatch.setattr("memorag_pipeline.machine.read_together._ITEMS", 2)
    pipeline = make_pipeline(budget_mib=64)
    made = []
    for attempt in (1, 2):
        batch = work_list(pipeline, [["a"], ["b"]], {name: f"{attempt}{text}" for name, text in TEXTS.items()}, None)
        with share_of_attempt(attempt):
            memorize(pipeline, batch)
        made.append(outcomes(pipeline, batch))
    assert budgets == [64 * 2**20, 32 * 2**20, 32 * 2**20]
    assert [outcome.counts for outcome in made[0].values()] == [outcome.counts for outcome in made[1].values()]


def test_finished_shards_are_not_read_again(pipeline: Pipeline) -> None:
    first = memorize(pipeline, work_list(pipeline, [["a"]], TEXTS, None))
    both = work_list(pipeline, [["a"], ["b"]], TEXTS, None)
    second = memorize(pipeline, both)
    assert second["memorized_tokens"] == second["tokens"] - first["tokens"]
    again = memorize(pipeline, both)
    assert (again["memorized_tokens"], again["reused_tokens"], again["seconds"]) == (0, second["tokens"], 0)


@pytest.mark.parametrize(
    "memory", [{}, {"kind": "beacon", "ratio": [2, 4]}, {"kind": "selected"}, {"kind": "gist"}], ids=str
)
def test_a_changed_shard_keeps_the_windows_before_its_change(
    make_pipeline: MakePipeline, memory: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = make_pipeline(**memory)
    old = work_list(pipeline, [["a", "b"]], TEXTS, None)
    memorize(pipeline, old)
    parent = publish(pipeline, outcomes(pipeline, old))
    changed = TEXTS | {"b": TEXTS["b"].replace("does nothing", "is a null operation")}
    new = work_list(pipeline, [["a", "b"]], changed, parent)
    result = memorize(pipeline, new)
    outcome = outcomes(pipeline, new)["a"]
    stored = [read_header(pipeline.store.blobs.open_file(o["a"].blobs["memory"])).window_digests
              for o in (outcomes(pipeline, old), outcomes(pipeline, new))]  # fmt: skip
    same = [a == b for a, b in zip(*stored, strict=False)].index(False)
    assert same > 0
    assert outcome.counts["reused_tokens"] == result["reused_tokens"] == same * WINDOW
    model = load_memory_model(pipeline.spec.memory, "en")
    stream = model.open(pipeline.store.blobs.open_file(outcome.blobs["memory"])).token_ids.tolist()
    model.save(model.memorize(stream), tmp_path / "at once")
    assert pipeline.store.blobs.put_file(tmp_path / "at once") == outcome.blobs["memory"]


def test_windows_that_get_another_ratio_count_as_read(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(kind="beacon", ratio=[2, 8], ratio_mix="adapt-1")
    old = work_list(pipeline, [["a"]], TEXTS, None)
    memorize(pipeline, old)
    parent = publish(pipeline, outcomes(pipeline, old))
    longer = TEXTS | {"a": TEXTS["a"] * 40}
    new = work_list(pipeline, [["a"]], longer, parent)
    result = memorize(pipeline, new)
    ratios = [set(read_header(pipeline.store.blobs.open_file(o["a"].blobs["memory"])).window_ratios)
              for o in (outcomes(pipeline, old), outcomes(pipeline, new))]  # fmt: skip
    assert ratios == [{2}, {8}]
    assert (result["memorized_tokens"], result["reused_tokens"]) == (result["tokens"], 0)


def test_a_parent_of_another_window_or_with_a_damaged_memory_is_not_used(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, make_spec: Callable[..., CorpusSpec], tmp_path: Path
) -> None:
    old = work_list(pipeline, [["a", "b"], ["c"]], TEXTS, None)
    memorize(pipeline, old)
    parent = publish(pipeline, outcomes(pipeline, old))
    longer = TEXTS | {name: TEXTS[name] + "More." for name in "bc"}

    memory = pipeline.spec.memory.model_dump() | {"window": WINDOW * 2}
    other = Pipeline(make_spec(tmp_path, memory=memory))
    assert memorize(other, work_list(other, [["a", "b"], ["c"]], longer, parent))["reused_tokens"] == 0
    [warning] = [record.getMessage() for record in caplog.records if "from their beginning" in record.getMessage()]
    assert "beginning: 2, for" in warning and "window 32 instead of 64" in warning

    blob = pipeline.store.blobs.open_file(outcomes(pipeline, old)["c"].blobs["memory"])
    time.sleep(0.01)  # another modification time
    blob.chmod(0o644)
    blob.write_bytes(bytes(blob.stat().st_size))
    longest = longer | {"c": longer["c"] + "More."}
    assert memorize(pipeline, work_list(pipeline, [["c"]], longest, parent))["reused_tokens"] == 0
    assert f"memory of shard c in version {parent} of {pipeline.store.uri}: blob sha256:" in caplog.text
    assert "was altered" in caplog.text


def test_progress_is_told_in_tokens_that_the_model_reads(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float | None, str]] = []
    read: list[float] = []

    class Bar:
        def advance(self, amount: float = 1) -> None:
            read.append(amount)

        def skip(self, amount: float) -> None: ...

    class Reporter:
        def start(self, name: str, total: float | None, unit: str) -> Bar:
            seen.append((name, total, unit))
            return Bar()

        def finish(self, bar: progress.Bar) -> None: ...

    monkeypatch.setattr(progress, "_reporter", Reporter())
    result = memorize(pipeline, work_list(pipeline, [["a"], ["b"]], TEXTS, None))
    assert seen == [("tokens memorized", result["tokens"], "tokens")]
    assert sum(read) == result["tokens"]


def test_what_is_read_of_shards_is_reported_before_they_are_recorded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    tell = tasks._Heart.tell

    def heard(heart: Any, **fields: Any) -> None:
        told.append(fields)
        tell(heart, **fields)

    monkeypatch.setattr(tasks._Heart, "tell", heard)
    batch = work_list(pipeline, [["a"], ["b"]], TEXTS, None)
    task = tasks.Task(tasks.Run("night", datetime(2026, 1, 2, tzinfo=UTC)), "memorize", work=batch)
    tasks.run_task(pipeline.store, task, lambda: memorize(pipeline, batch), beat_seconds=3600)
    shares = [fields["work_done"] for fields in told if fields.get("work_done")]
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_shard_longer_than_the_context_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ContextLengthError, match=r"make sharding\.max_tokens smaller"):
        memorize(pipeline, work_list(pipeline, [["a"]], {"a": TEXTS["a"] * 20}, None))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memorag_pipeline.machine.read_together._ITEMS", 1)


@pytest.mark.usefixtures("one_at_a_time")
def test_a_shard_is_stored_while_the_next_is_read(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    second_is_read, first_is_stored = Event(), Event()
    extend_many, put_file = WindowedMemoryModel.extend_many, Blobs.put_file
    read: list[int] = []

    def reading(model: Any, *rest: Any) -> Any:
        read.append(len(read))
        if len(read) == 2:
            second_is_read.set()
            assert first_is_stored.wait(60), "the first shard is stored only after the second was read"
        return extend_many(model, *rest)

    def storing(store: Blobs, path: Path) -> Any:
        assert second_is_read.wait(60), "the second shard is read only after the first was stored"
        ref = put_file(store, path)
        first_is_stored.set()
        return ref

    monkeypatch.setattr(WindowedMemoryModel, "extend_many", reading)
    monkeypatch.setattr(Blobs, "put_file", storing)
    batch = work_list(pipeline, [["a"], ["b"], ["c"]], TEXTS, None)
    result = memorize(pipeline, batch)
    assert len(outcomes(pipeline, batch)) == 3
    assert result["memorized_tokens"] == result["tokens"] > 0


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_shard_that_cannot_be_stored_ends_the_task_and_a_retry_goes_on(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Also when it is the last one, whose error nothing else would wait for."""
    put_file, calls = Blobs.put_file, list[Path]()

    def failing(store: Blobs, path: Path) -> Any:
        calls.append(path)
        if len(calls) == fails_at:
            raise StorageError("no space left")
        return put_file(store, path)

    monkeypatch.setattr(Blobs, "put_file", failing)
    batch = work_list(pipeline, [["a"], ["b"], ["c"]], TEXTS, None)
    with pytest.raises(StorageError, match="no space left"):
        memorize(pipeline, batch)
    assert not any(path.exists() for path in calls)
    done = fails_at - 1
    assert sum(pipeline.store.units.find(STAGE, unit["fingerprint"]) is not None
               for unit in read_json(pipeline, batch)["units"]) == done  # fmt: skip
    assert memorize(pipeline, batch)["shards"] == 3
    assert len(outcomes(pipeline, batch)) == 3


@pytest.mark.usefixtures("one_at_a_time")
def test_both_errors_of_a_task_are_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The one of reading is raised, the one of storing what was read before is in the log."""
    extend_many, read = WindowedMemoryModel.extend_many, list[int]()

    def reading(model: Any, *rest: Any) -> Any:
        read.append(len(read))
        if len(read) == 2:
            raise ContextLengthError("too long")
        return extend_many(model, *rest)

    def failing(store: Blobs, path: Path) -> Any:
        raise StorageError("no space left")

    monkeypatch.setattr(WindowedMemoryModel, "extend_many", reading)
    monkeypatch.setattr(Blobs, "put_file", failing)
    with pytest.raises(ContextLengthError, match="too long"):
        memorize(pipeline, work_list(pipeline, [["a"], ["b"]], TEXTS, None))
    assert "memories that were read are not recorded: StorageError: no space left" in caplog.text
