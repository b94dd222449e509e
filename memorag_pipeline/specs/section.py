"""A section of a spec: a pydantic model with rules between its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Conflict:
    """A broken rule: its keys (relative to the section), the value of the first, the problem, what would be right."""

    keys: tuple[str, ...]
    value: Any
    problem: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """`problem` gets the values at `keys` (dotted, relative to the section) and returns None when they fit."""

    keys: tuple[str, ...]
    problem: Callable[..., str | None]
    fix: str


def conflicts(section: Any, rules: tuple[Rule, ...]) -> Iterator[Conflict]:
    """The rules that `section` breaks."""
    for rule in rules:
        values = [reduce(getattr, key.split("."), section) for key in rule.keys]
        problem = rule.problem(*values)
        if problem is not None:
            yield Conflict(rule.keys, values[0], problem, rule.fix)


CONFLICT = "conflict"  # type of the validation error that carries the broken rules of a section


class Section(BaseModel):
    """A section of the spec: unknown keys are refused, values are immutable, `rules` hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self, info: ValidationInfo) -> Section:
        broken = [] if info.context and info.context.get("skip_rules") else self.conflicts()
        if broken:
            text = "; ".join(f"{conflict.keys[0]}: {conflict.problem}; {conflict.fix}" for conflict in broken)
            raise PydanticCustomError(CONFLICT, "{text}", {"text": text})
        return self

    def conflicts(self) -> list[Conflict]:
        """The rules of this section (not of those below it) that its values break."""
        return list(conflicts(self, self.rules))
