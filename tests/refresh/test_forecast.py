"""The forecast of a refresh, compared with the refresh; and that a forecast writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline import runner
from memorag_pipeline.corpus.inventory import Inventory, SourceObject
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.forecast import _touched, forecast
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.source_digest import listed_digest, published_digest
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage.verify import verify
from tests.memory.conftest import MakeFolder, tiny_folder
from tests.storage.work_json import read_json

__all__ = ["tiny_folder"]


@pytest.fixture
def pipeline(source: Path, make_spec: Callable[..., CorpusSpec], tiny_folder: MakeFolder) -> Pipeline:
    memory = {"kind": "full", "model": str(tiny_folder("llama")), "window": 32, "dtype": "float32"}
    small = {
        "sharding": {"max_tokens": 128, "min_tokens": 32},
        "chunking": {"max_tokens": 64},
        "generation": {"evidence_tokens": 64, "max_new_tokens": 16},
    }
    return Pipeline(make_spec(source, memory=memory, compute={"gpu_hour_price": 3600}, **small))


def objects(pipeline: Pipeline) -> dict[Path, int]:
    """All files of the store, with the times at which they were written."""
    folder = Path(pipeline.store.uri.removeprefix("file://"))
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_forecast_is_near_what_the_refresh_does(pipeline: Pipeline, source: Path) -> None:
    first = forecast(pipeline)
    assert (first.parent, first.changed, first.documents, first.added) == (None, True, 12, 12)
    assert first.source_bytes == sum(path.stat().st_size for path in source.iterdir())
    assert first.gpu_seconds is first.cost is None
    assert objects(pipeline) == {}
    with pytest.raises(NotFoundError, match="no version yet"):
        forecast(pipeline, documents="**/pass.rst")

    made = runner.refresh(pipeline, "one").counts
    assert 0.5 < first.shards / made["shard"]["shards"] < 2
    made_bytes = sum(blob.size for blob in pipeline.store.versions.manifest(1).of_role("memory"))
    assert first.memory_bytes and 0.5 < made_bytes / first.memory_bytes < 2
    before = objects(pipeline)
    nothing = forecast(pipeline)
    assert (nothing.changed, nothing.tokens, nothing.shards, nothing.cost) == (False, 0, 0, 0)

    (source / "del.rst").unlink()
    (source / "new.rst").write_text((source / "while.rst").read_text().upper())
    with (source / "pass.rst").open("a") as document:
        document.write("\nIt is often seen in the body of an empty class.\n" * 9)
    assert listed_digest(pipeline) != published_digest(pipeline)
    told = forecast(pipeline)
    assert (told.added, told.modified, told.removed) == (1, 1, 1)
    assert told.gpu_seconds and told.cost == pytest.approx(told.gpu_seconds, rel=1e-3)
    assert told.memory_bytes and any("version 1" in note for note in told.rests_on)
    assert forecast(pipeline, gpu_hour_price=7200).cost == pytest.approx(2 * told.gpu_seconds, rel=1e-3)
    assert forecast(pipeline, documents="**/pass.rst").added == 0
    assert objects(pipeline) == before

    done = runner.refresh(pipeline, "two").counts
    assert 0.5 < done["memorize"]["memorized_tokens"] / told.memorize_tokens < 2
    assert done["memorize"]["shards"] / 2 <= told.shards <= done["memorize"]["shards"] * 2
    assert listed_digest(pipeline) == published_digest(pipeline)


def test_a_forecast_tells_what_is_left_out_by_default(pipeline: Pipeline, source: Path) -> None:
    (source / ".env.rst").write_text("TOKEN=1")
    (source / ".git").mkdir()
    (source / ".git" / "config.rst").write_text("[core]")
    found = forecast(pipeline)
    assert (found.documents, found.left_out) == (12, 2)


def test_some_documents_are_refreshed_alone_and_damage_is_made_good_by_force(pipeline: Pipeline, source: Path) -> None:
    runner.refresh(pipeline, "one")
    for name in ("pass", "break"):
        with (source / f"{name}.rst").open("a") as document:
            document.write("\nMore.\n")
    (source / "del.rst").unlink()
    taken = take_inventory(pipeline, "**/pass.rst")
    assert taken["counts"] == {"documents": 12, "added": 0, "changed": 1, "removed": 0, "unchanged": 11}

    manifest = pipeline.store.versions.manifest(1)
    memory = manifest.of_role("memory")[-1].ref
    pipeline.store.objects.put(memory.key, bytes(memory.size))
    assert read_json(pipeline, take_inventory(pipeline)["plan"])["lost"] == []
    assert [problem.digest for problem in verify(pipeline.store, 1)] == [memory.digest]
    made = runner.refresh(pipeline, "two", "**/pass.rst", force=True)
    assert made.version == 2 and made.counts["inventory"]["changed"] == 1
    assert verify(pipeline.store, 2) == []


@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.sampled_from("xyz")), min_size=1, max_size=8),
    st.lists(st.text("abc", max_size=2), max_size=6),
    st.sets(st.integers(0, 7)),
)
def test_shards_touched_hold_what_is_gone_or_stand_beside_what_is_new(
    rows: list[tuple[str, str]], new: list[str], gone: set[int]
) -> None:
    sections = pa.table(
        {
            "document_id": [str(number) for number in range(len(rows))],
            "uri": [uri for uri, _ in rows],
            "shard_id": [shard for _, shard in rows],
        }
    )
    todo = Inventory.of(SourceObject(uri, 1, None, None) for uri in new)
    ordered = sorted(rows, key=lambda row: row[0])
    expected = {shard for number, (_, shard) in enumerate(rows) if number in gone}
    for uri in set(new):
        place = sum(row[0] <= uri for row in ordered)
        expected.add(ordered[max(place - 1, 0)][1])
    assert _touched(sections, todo, pa.array(map(str, sorted(gone)), pa.string())) == expected
