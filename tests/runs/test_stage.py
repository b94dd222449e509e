"""The lists of stages name functions, plans and units that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from memorag_pipeline.jobs.answers.stages import ANSWERS
from memorag_pipeline.jobs.summaries.stages import SUMMARIES
from memorag_pipeline.refresh.stages import GATE, RECORD, REFRESH
from memorag_pipeline.runs import stage as stage_module
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.storage.plans import Plan
from memorag_pipeline.training.stages import TRAINING

LISTS = {"refresh": (*REFRESH, *GATE, RECORD), "answers": ANSWERS, "summaries": SUMMARIES, "training": TRAINING}
STAGES = [pytest.param(stage, id=f"{name}-{stage.name}") for name, stages in LISTS.items() for stage in stages]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", STAGES)
def test_function_plan_and_units_are_there(stage: Stage) -> None:
    module, _, attribute = stage.function.partition(":")
    defined = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()).body
    assert attribute in {node.name for node in defined if isinstance(node, ast.FunctionDef)}
    if stage.plan:
        assert issubclass(stage.plan_type(), Plan)
    if stage.units is not None:
        assert stage.planned_by is not None
        planned = stage.planned_by.plan_type()
        assert stage.units in planned.model_fields or isinstance(getattr(planned, stage.units), property)


@pytest.mark.parametrize("stages", LISTS.values(), ids=list(LISTS))
def test_names_are_unique_and_planners_come_first(stages: tuple[Stage, ...]) -> None:
    assert len({stage.name for stage in stages}) == len(stages)
    for place, stage in enumerate(stages):
        for before in (stage.planned_by, stage.plan_of):
            assert before is None or before in stages[:place]


def test_a_stage_is_imported_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def work(*given: object) -> dict[str, int]:
        calls.append(given)
        return {"done": 1}

    monkeypatch.setattr(stage_module, "work", work, raising=False)
    monkeypatch.setattr(stage_module, "require_pipeline", lambda: None)  # the fast tier has no such packages
    stage = Stage("say", f"{stage_module.__name__}:work")
    assert stage.call("place", 1, 2) == {"done": 1}
    assert calls == [("place", 1, 2)]
