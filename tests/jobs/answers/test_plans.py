"""Plans and work lists of earlier releases can be read, and those of this one are the same JSON, but for settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memorag_pipeline.errors import PlanError
from memorag_pipeline.jobs.answers import plans
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import read_plan
from tests.storage.work_json import assert_read_and_written_alike

BEFORE = json.loads(Path(__file__).with_name("plans_before.json").read_text())


@pytest.mark.parametrize("name", BEFORE)
def test_a_plan_of_before_is_read_and_would_be_written_the_same(name: str, tmp_path: Path) -> None:
    assert_read_and_written_alike(tmp_path, BEFORE[name], getattr(plans, name))


def test_plans_that_answers_are_carried_over_from_need_no_more_than_their_batches(tmp_path: Path) -> None:
    store = CorpusStore(str(tmp_path))
    first = {"job": "faq", "version": 1, "batches": ["a" * 64], "recalls": []}
    uri = store.blobs.uri(store.blobs.put_json(first))
    assert read_plan(store.blobs, uri, plans.AnsweredBatches).batches == ("a" * 64,)
    with pytest.raises(PlanError, match="todo: Field required"):
        read_plan(store.blobs, uri, plans.AnswersPlan)
