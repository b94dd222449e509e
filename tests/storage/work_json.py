"""Plans and work lists as the JSON that they are in the store, whatever reads or writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memorag_pipeline.pipeline import Pipeline, Workplace
from memorag_pipeline.specs.corpus import CorpusSpec


def write_json(place: Workplace, value: Any) -> str:
    blobs = place.store.blobs
    return blobs.uri(blobs.put_json(value))


def read_json(place: Workplace, uri: str) -> Any:
    return place.store.blobs.get_json(place.store.blobs.ref_of(uri))


def assert_read_and_written_alike(root: Path, before: dict[str, Any], kind: Any) -> None:
    """A plan of jobs of an earlier release is read as a `kind`, and would be written the same."""
    values = {"corpus": "kb", "source": {"uris": ["docs"]}, "store": {"uri": str(root)}}
    models = {"memory": {"model": "some/model"}, "embedding": {"model": "some/embedder"}}
    pipeline = Pipeline(CorpusSpec.model_validate({**values, **models}))
    plan = pipeline.read_work(write_json(pipeline, before), kind)
    after = read_json(pipeline, pipeline.write_work(plan))
    # Settings may have more keys with each release; what is not written has the default of before.
    known, settings = before.get("settings", {}), after.get("settings", {})
    assert known.keys() <= settings.keys()
    assert {**after, "settings": known} == {"settings": known, **before}
