"""Plans of trainings of earlier releases can be read, and those of this one are the same JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.training import plans
from memorag_pipeline.training.training import Training
from tests.storage.work_json import write_json

BEFORE = json.loads(Path(__file__).with_name("plans_before.json").read_text())
FORMS = {"StudiedPlan": plans.TrainingPlan}


@pytest.mark.parametrize("name", BEFORE)
def test_a_plan_of_before_is_read_and_would_be_written_the_same(
    name: str, training_values: dict[str, Any], tmp_path: Path
) -> None:
    training = Training(TrainingSpec.model_validate(training_values | {"store": {"uri": str(tmp_path)}}))
    uri = write_json(training, BEFORE[name])
    form = FORMS.get(name) or getattr(plans, name)
    assert training.write_work(training.read_work(uri, form)) == uri
