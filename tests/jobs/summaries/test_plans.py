"""Plans and work lists of earlier releases can be read, and those of this one are the same JSON, but for settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memorag_pipeline.jobs.summaries import plans
from tests.storage.work_json import assert_read_and_written_alike

BEFORE = json.loads(Path(__file__).with_name("plans_before.json").read_text())


@pytest.mark.parametrize("name", BEFORE)
def test_a_plan_of_before_is_read_and_would_be_written_the_same(name: str, tmp_path: Path) -> None:
    assert_read_and_written_alike(tmp_path, BEFORE[name], getattr(plans, name))
