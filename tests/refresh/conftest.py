"""The corpus stages in order, and a version that holds what they made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.shard import plan_shards
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob, ModelRecord
from tests.corpus.conftest import memory_folder, parser
from tests.storage.conftest import root
from tests.storage.work_json import read_json
from tests.warehouse.conftest import spec

__all__ = [
    "MakePipeline",
    "Refreshed",
    "make_pipeline",
    "memory_folder",
    "parser",
    "refresh",
    "root",
    "spec",
]

MakePipeline = Callable[..., Pipeline]


@dataclass(frozen=True)
class Refreshed:
    """What the stages inventory, extract and shard returned."""

    pipeline: Pipeline
    inventory: dict[str, Any]
    extracted: list[dict[str, int]]
    sharded: dict[str, Any]

    @cached_property
    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = read_json(self.pipeline, self.sharded["plan"])
        return plan

    def rows(self, role: str) -> list[dict[str, Any]]:
        """All rows of a role, in order."""
        refs = self.plan[role] if isinstance(self.plan[role], list) else [self.plan[role]]
        return [row for ref in refs for row in self.pipeline.store.blobs.get_table(BlobRef(**ref)).to_pylist()]

    def reused(self) -> int:
        return sum(counts["reused"] for counts in self.extracted)

    def publish(self, units: Sequence[dict[str, Any]] = ()) -> int:
        """Commit a version that holds what these stages made, and units (the models' blobs do not matter)."""
        plan, spec = self.plan, self.pipeline.spec
        blobs = [_blob("inventory", "inventory.parquet", plan["inventory"])]
        if units:
            blobs.append(_blob("units", "units.json", self.pipeline.store.blobs.put_json(list(units)).model_dump()))
        for role in ("documents", "chunks", "quarantine"):
            blobs += [_blob(role, f"{role}/{i:05d}.parquet", ref) for i, ref in enumerate(plan[role])]
        manifest = Manifest(
            corpus=spec.corpus,
            language=spec.language,
            parent=None,
            spec_fingerprint=plan["spec_fingerprint"],
            spec=spec.content(),
            models=tuple(ModelRecord(**model) for model in plan["models"]),
            blobs=tuple(blobs),
            counts=plan["counts"],
        )
        return self.pipeline.store.versions.publish(manifest, "run").version


def _blob(role: str, path: str, ref: dict[str, Any]) -> ManifestBlob:
    return ManifestBlob(role=role, path=path, digest=ref["digest"], size=ref["size"])


def refresh(pipeline: Pipeline) -> Refreshed:
    """Run the corpus stages."""
    inventory = take_inventory(pipeline)
    extracted = [extract(pipeline, uri) for uri in inventory["extract"]]
    return Refreshed(pipeline, inventory, extracted, plan_shards(pipeline, inventory["plan"]))


@pytest.fixture
def make_pipeline(make_spec: Callable[..., CorpusSpec], source: Path) -> MakePipeline:
    """Make a pipeline over `source` or another place; keyword arguments are laid over sections of the spec."""

    def make(place: Path | str = source, **sections: Any) -> Pipeline:
        values = make_spec(place).model_dump(mode="json")
        for name, value in sections.items():
            values[name] = {**values[name], **value} if isinstance(value, dict) else value
        return Pipeline(CorpusSpec.model_validate(values))

    return make
