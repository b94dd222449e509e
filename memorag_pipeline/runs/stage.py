"""The description of a stage: its name, its function, what it plans and what plans it.

The lists of stages are `refresh/stages.py`, `jobs/answers/stages.py`, `jobs/summaries/stages.py` and
`training/stages.py`. Everything that runs, draws, reports or forecasts stages reads them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from memorag_pipeline.machine.packages import require_pipeline


@dataclass(frozen=True)
class Stage:
    """A stage. It is imported when it is called: most stages load heavy libraries.

    `function` and `plan` are given as "module:name". `plan` is the type of the plan that the stage writes. `planned_by`
    is the stage that returns this one's work lists, under this one's name; a stage without has one task. `units` is the
    attribute of the planner's plan that names all units of this stage, `kept_as` the name under which their outcomes
    are kept. `plan_of` is the stage whose plan is passed to a stage of one task. `gpu`: the stage uses models, so it
    runs where the spec's `compute` says. `ends`: a run may end with it. `counts` are the numbers of its result that
    messages show, `settled` those counts of its outcomes that follow from the fingerprint of the unit alone.
    """

    name: str
    function: str
    planned_by: Stage | None = None
    units: str | None = None
    kept_as: str = ""
    plan_of: Stage | None = None
    plan: str = ""
    gpu: bool = False
    ends: bool = False
    counts: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()

    @property
    def outcomes(self) -> str:
        """The name under which the outcomes of its units are kept: its own, or `kept_as`."""
        return self.kept_as or self.name

    @property
    def starts(self) -> bool:
        """Whether runs start with it: it plans, and works on no other stage's plan."""
        return bool(self.plan) and self.planned_by is None and self.plan_of is None

    def call(self, place: Any, *arguments: Any) -> dict[str, Any]:
        """Call the stage's function; `place` is the `Pipeline`, or the `Training`.

        Raises MissingDependencyError where this installation can only read versions.
        """
        require_pipeline()
        result: dict[str, Any] = _imported(self.function)(place, *arguments)
        return result

    def plan_type(self) -> Any:
        """The class of the plan that the stage writes."""
        return _imported(self.plan)


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
