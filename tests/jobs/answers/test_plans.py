"""Plans and work lists of earlier releases can be read, and those of this one are the same JSON, but for settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memorag_pipeline.errors import PlanError
from memorag_pipeline.jobs.answers import plans
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import read_plan
from tests.storage.work_json import read_json, write_json

BEFORE = json.loads(Path(__file__).with_name("plans_before.json").read_text())


@pytest.mark.parametrize("name", BEFORE)
def test_a_plan_of_before_is_read_and_would_be_written_the_same(name: str, tmp_path: Path) -> None:
    values = {"corpus": "kb", "source": {"uris": ["docs"]}, "store": {"uri": str(tmp_path)}}
    models = {"memory": {"model": "some/model"}, "embedding": {"model": "some/embedder"}}
    pipeline = Pipeline(CorpusSpec.model_validate({**values, **models}))
    uri = write_json(pipeline, BEFORE[name])
    plan = pipeline.read_work(uri, getattr(plans, name))
    after = read_json(pipeline, pipeline.write_work(plan))
    # Settings may have more keys with each release; what is not written has the default of before.
    known, settings = BEFORE[name].get("settings", {}), after.get("settings", {})
    assert known.keys() <= settings.keys()
    assert {**after, "settings": known} == {"settings": known, **BEFORE[name]}


def test_plans_that_answers_are_carried_over_from_need_no_more_than_their_batches(tmp_path: Path) -> None:
    store = CorpusStore(str(tmp_path))
    first = {"job": "faq", "version": 1, "batches": ["a" * 64], "recalls": []}
    uri = store.blobs.uri(store.blobs.put_json(first))
    assert read_plan(store.blobs, uri, plans.AnsweredBatches).batches == ("a" * 64,)
    with pytest.raises(PlanError, match="todo: Field required"):
        read_plan(store.blobs, uri, plans.AnswersPlan)
