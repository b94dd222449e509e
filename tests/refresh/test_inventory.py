"""The inventory: what changed since the parent, and nothing that did not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from memorag_pipeline.digests import file_digest, text_digest
from memorag_pipeline.errors import EmptyCorpusError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.storage import BlobRef
from tests.refresh.conftest import MakePipeline, refresh
from tests.storage.work_json import read_json


def rows(pipeline: Pipeline, inventory: dict[str, Any]) -> list[dict[str, Any]]:
    ref = BlobRef(**read_json(pipeline, inventory["plan"])["inventory"])
    found: list[dict[str, Any]] = pipeline.store.blobs.get_table(ref).to_pylist()
    return found


def rewrite(path: Path, text: str) -> None:
    """Write, with a time that differs from all before."""
    path.write_text(text)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


def test_first_inventory(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline()
    taken = take_inventory(pipeline)
    assert taken["changed"] and taken["parent"] is None
    assert taken["counts"] == {"documents": 12, "added": 12, "changed": 0, "removed": 0, "unchanged": 0}
    listed = rows(pipeline, taken)
    assert [row["uri"] for row in listed] == sorted(f"file://{path}" for path in source.iterdir())
    for row in listed:
        assert row["document_id"] == text_digest(row["uri"])[:16]
        assert row["size"] == Path(row["uri"].removeprefix("file://")).stat().st_size
    objects = [part["objects"] for uri in taken["extract"] for part in read_json(pipeline, uri)["parts"]]
    assert [row for part in objects for row in part] == listed
    assert all(1 <= len(part) <= 4 for part in objects)
    plan = read_json(pipeline, taken["plan"])
    assert [model["role"] for model in plan["models"]] == ["memory", "embedding"]
    assert plan["spec_fingerprint"] == pipeline.spec.fingerprint()


def test_work_lists_hold_as_many_units_as_a_task_takes(make_pipeline: MakePipeline) -> None:
    few = take_inventory(make_pipeline(compute={"units_per_task": 2}))
    many = take_inventory(make_pipeline(compute={"units_per_task": 1}))
    assert len(many["extract"]) > len(few["extract"]) > 1
    assert few["plan"] == many["plan"]


def test_an_unchanged_corpus_changes_nothing(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    first = refresh(pipeline)
    assert first.publish() == 1
    again = take_inventory(pipeline)
    assert not again["changed"] and again["extract"] == [] and again["parent"] == 1
    assert again["counts"] == {"documents": 12, "added": 0, "changed": 0, "removed": 0, "unchanged": 12}
    assert read_json(pipeline, again["plan"])["inventory"] == first.plan["inventory"]


def test_a_touched_document_is_unchanged(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline()
    first = refresh(pipeline)
    first.publish()
    rewrite(source / "if.rst", (source / "if.rst").read_text())
    again = take_inventory(pipeline)
    assert not again["changed"] and again["extract"] == []
    assert read_json(pipeline, again["plan"])["inventory"] == first.plan["inventory"]


def test_added_changed_and_removed_documents_are_counted(make_pipeline: MakePipeline, source: Path) -> None:
    pipeline = make_pipeline()
    refresh(pipeline).publish()
    text = (source / "if.rst").read_text()
    rewrite(source / "if.rst", text.replace("if", "IF", 1))  # of the same size
    rewrite(source / "while.rst", "shorter")
    (source / "del.rst").unlink()
    (source / "new.rst").write_text("A new document.")
    again = take_inventory(pipeline)
    assert again["changed"]
    assert again["counts"] == {"documents": 12, "added": 1, "changed": 2, "removed": 1, "unchanged": 9}


def test_a_touched_document_that_is_too_large_is_not_read(make_pipeline: MakePipeline, source: Path) -> None:
    with (source / "big.rst").open("wb") as file:
        file.truncate(200 << 20)
    pipeline = make_pipeline()
    first = refresh(pipeline)
    first.publish()
    os.utime(source / "big.rst", (1, 1))
    assert not take_inventory(pipeline)["changed"]


@pytest.mark.parametrize(
    "sections",
    [
        {"chunking": {"max_tokens": 64}},
        {"language": "zh"},
        {"sharding": {"max_tokens": 512, "min_tokens": 64}},
    ],
)
def test_another_spec_is_a_change(make_pipeline: MakePipeline, sections: dict[str, Any]) -> None:
    refresh(make_pipeline()).publish()
    again = take_inventory(make_pipeline(**sections))
    assert again["changed"] and len(again["extract"]) >= 1
    assert again["counts"]["unchanged"] == 12


def test_another_model_is_a_change(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    from memorag_pipeline.models.references import resolve

    refresh(make_pipeline()).publish()
    copy = tmp_path / "model"
    copy.mkdir()
    for path in resolve("package:all-minilm-l6-v2").folder.iterdir():
        if path.is_file() and path.name != "config.json":
            (copy / path.name).symlink_to(path)
    config = (resolve("package:all-minilm-l6-v2").folder / "config.json").read_text()
    (copy / "config.json").write_text(config)
    pipeline = make_pipeline(embedding={"model": str(copy)})
    published = refresh(pipeline)
    assert published.inventory["changed"]
    published.publish()
    assert not take_inventory(pipeline)["changed"]
    (copy / "config.json").write_text(config + "\n")
    assert take_inventory(pipeline)["changed"]


def test_another_adapter_is_a_change(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"weight": np.ones(4, np.float32)}, path)
    pipeline = make_pipeline(memory={"kind": "beacon", "adapter": str(path)})
    first = refresh(pipeline)
    first.publish()
    (record,) = (model for model in first.plan["models"] if model["role"] == "adapter")
    assert record == {"role": "adapter", "name": str(path), "revision": None, "digest": file_digest(path)}
    assert not take_inventory(pipeline)["changed"]
    save_file({"weight": np.zeros(4, np.float32)}, path)
    assert take_inventory(pipeline)["changed"]


def test_another_budget_is_no_change(make_pipeline: MakePipeline) -> None:
    refresh(make_pipeline()).publish()
    assert not take_inventory(make_pipeline(memory={"budget_mib": 64}))["changed"]


def test_nothing_found_names_the_place_and_the_globs(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, source={"include": ["*.pdf"], "exclude": ["old/**"]})
    with pytest.raises(EmptyCorpusError, match=rf"{tmp_path}.*\*\.pdf.*old/\*\*"):
        take_inventory(pipeline)
    (tmp_path / "secret.pem").write_text("key")
    with pytest.raises(EmptyCorpusError, match=r"1 objects are left out .* source\.default_exclude: false"):
        take_inventory(make_pipeline(tmp_path, source={"include": ["*.pem"]}))
    with pytest.raises(StorageError, match="no such bucket or folder"):
        take_inventory(make_pipeline(tmp_path / "nowhere"))
