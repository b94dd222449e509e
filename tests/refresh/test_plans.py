"""Plans and work lists of earlier releases can be read, and those of this one are the same JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from memorag_pipeline import schemas, storage
from memorag_pipeline.errors import CorruptBlobError, PlanError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh import plans
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef
from memorag_pipeline.storage.manifest import IndexRecord
from tests.storage.work_json import read_json, write_json

BEFORE = json.loads(Path(__file__).with_name("plans_before.json").read_text())


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    values = {"corpus": "kb", "source": {"uris": ["docs"]}, "store": {"uri": str(tmp_path)}}
    models = {"memory": {"model": "some/model"}, "embedding": {"model": "some/embedder"}}
    return Pipeline(CorpusSpec.model_validate({**values, **models}))


@pytest.mark.parametrize("name", BEFORE)
def test_a_plan_of_before_is_read_and_would_be_written_the_same(name: str, pipeline: Pipeline) -> None:
    uri = write_json(pipeline, BEFORE[name])
    assert pipeline.write_work(pipeline.read_work(uri, getattr(plans, name))) == uri


@pytest.fixture
def long_plan(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> plans.IndexPlan:
    """With more items in its lists than JSON has."""
    monkeypatch.setattr(storage.plans, "LONGEST_LIST", 20)
    shard = pipeline.read_work(write_json(pipeline, BEFORE["ShardPlan"]), plans.ShardPlan)
    refs = [BlobRef(digest=f"{number:064x}", size=number) for number in range(50)]
    memory, embeddings = shard.memories[0], shard.embeddings[0]
    made_on = ("", "cpu")
    return plans.IndexPlan(
        **{
            **dict(shard),
            "memories": [
                plans.StoredMemory(**{**dict(memory), "memory": ref, "made_on": made_on[number % 2]})
                for number, ref in enumerate(refs)
            ],
            "embeddings": [plans.StoredEmbeddings(**dict(embeddings), embeddings=ref) for ref in refs],
            "fresh": [ref.digest for ref in refs],
        },
        units=refs[0],
        index=IndexRecord(factory="Flat", template=None, trained_on=0, segments=()),
        indexed_chunks=(),
    )


def test_long_lists_of_a_plan_are_tables(pipeline: Pipeline, long_plan: plans.IndexPlan) -> None:
    uri = pipeline.write_work(long_plan)
    assert pipeline.store.blobs.ref_of(uri).size < 5_000
    assert pipeline.read_work(uri, plans.IndexPlan) == long_plan
    assert pipeline.write_work(pipeline.read_work(uri, plans.IndexPlan)) == uri
    names = ("memories", "embeddings", "fresh")
    assert all(read_json(pipeline, uri)[name].keys() == {"table"} for name in names)
    unknown = long_plan.model_copy(update={"fresh": None})
    assert pipeline.read_work(pipeline.write_work(unknown), plans.IndexPlan) == unknown
    # An earlier stage's form needs fewer columns.
    assert len(pipeline.read_work(uri, plans.ShardPlan).memories) == len(long_plan.memories)


def test_a_table_of_a_plan_that_is_another_is_refused_by_name(pipeline: Pipeline, long_plan: plans.IndexPlan) -> None:
    value = read_json(pipeline, pipeline.write_work(long_plan))
    swapped = write_json(pipeline, {**value, "memories": value["fresh"]})
    with pytest.raises(CorruptBlobError, match=r"IndexPlan\.memories: the table has no column 'shard_id'"):
        pipeline.read_work(swapped, plans.IndexPlan)
    with pytest.raises(PlanError, match=r"is not a IndexPlan that this release can read \(table"):
        pipeline.read_work(write_json(pipeline, {**value, "memories": {"rows": 3}}), plans.IndexPlan)
    digests = pa.table({"digest": [f"{number}" for number in range(3)]}, schema=schemas.DIGESTS)
    unlike = pa.table({name: digests["digest"] for name in ("fingerprint", "configuration")})
    refs = pa.array([{"digest": "none", "size": 1}] * 3, schemas.BLOB)
    for name in ("chunks", "embeddings"):
        unlike = unlike.append_column(schemas.STORED_EMBEDDINGS.field(name), refs)
    table = pipeline.store.blobs.put_table(unlike.cast(schemas.STORED_EMBEDDINGS))
    with pytest.raises(PlanError, match=r"0\.chunks\.digest"):
        named = {"table": table.model_dump()}
        pipeline.read_work(write_json(pipeline, {**value, "embeddings": named}), plans.IndexPlan)
