"""Reading and checking a spec file, with errors that a user can act on.

In:  the path of a YAML file.
Out: a checked `CorpusSpec`, or another kind of spec.
Wrong: one `SpecError` with every problem found: in the file, in single values, and between values of any sections.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from memorag_pipeline.errors import SpecError, SpecProblem
from memorag_pipeline.redaction import redacted
from memorag_pipeline.specs.file import SpecFile, load
from memorag_pipeline.specs.section import Section
from memorag_pipeline.specs.values import PATTERNS

_SECRET = re.compile(r"secret|password|token\b|credential|(\b|_)key(\b|_)|storage_option|database", re.IGNORECASE)
_HTTP = re.compile(r"(https?://[^/?#\s'\"]*)[^\s'\"]*", re.IGNORECASE)
_MOST_PROBLEMS = 50
_ROUNDS = 32  # far more than sections are nested; each takes wrong values out
_SHOULD_BE = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "a text; put it in quotes",
}
# Substitutes for a required key that is missing or wrong, so that the keys around it can still be checked.
_STAND_INS: dict[str, Any] = {
    "adapter": "unknown",
    "corpus": "unknown",
    "data": {"text": ["unknown"]},
    "input": 0,
    "output": 0,
    "source": {"uris": ["unknown"]},
    "store": {"uri": "unknown"},
    "memory": {"model": "unknown"},
    "embedding": {"model": "unknown"},
    "model": "unknown",
    "questions": {},
    "uri": "unknown",
    "uris": ["unknown"],
    "warehouse": {},
}


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Examined(Generic[S]):
    """What a spec file says. With `problems`, the values at the keys in `broken` are defaults or stand-ins."""

    file: SpecFile
    spec: S
    problems: tuple[SpecProblem, ...]
    broken: frozenset[str]


def read(path: Path, kind: type[S]) -> S:
    """Read `path` as a spec of `kind`; SpecError lists every problem found."""
    examined = examine(path, kind)
    if examined.problems:
        raise SpecError(examined.problems)
    return examined.spec


def examine(path: Path, kind: type[S]) -> Examined[S]:
    """Read `path` as far as it can be read; SpecError only when it holds no mapping at all."""
    file = load(path)
    broken = {problem.key for problem in file.problems}
    problems = list(file.problems)
    spec, errors = _validate_leniently(file.values, kind)
    for error in errors:
        key = _dotted(error["loc"])
        if not _within(key, broken):
            problems.append(_explain(file, key, error, kind))
        if len(problems) > _MOST_PROBLEMS:
            break
    broken |= {_dotted(error["loc"]) for error in errors}
    problems.extend(_conflicts(file, spec, broken))
    problems.sort(key=lambda problem: problem.line or 0)
    if len(problems) > _MOST_PROBLEMS:
        more = SpecProblem(str(path), "", "", "has more problems than these", "correct these first")
        problems[_MOST_PROBLEMS:] = [more]
    return Examined(file, spec, tuple(problems), frozenset(broken))


def _validate_leniently(values: dict[str, Any], kind: type[S]) -> tuple[S, list[Any]]:
    """The spec without its wrong values, and the errors of these. Rules between keys are not looked at."""
    values, first_errors = copy.deepcopy(values), None
    for attempt in itertools.count():
        if attempt == _ROUNDS:
            values = {}  # unusable: only substitutes
        try:
            spec = kind.model_validate(values, context={"skip_rules": True})
            return spec, first_errors or []
        except ValidationError as error:
            found = error.errors(include_url=False)
            first_errors = found if first_errors is None else first_errors
            for item in found:
                _mend(values, _place(item["loc"]), item["type"] == "missing")
    raise AssertionError("unreachable")


def _mend(values: dict[Any, Any], loc: tuple[int | str, ...], missing: bool) -> None:
    """Take the value at `loc` out (a whole list for one of its items), or put a stand-in where one is missing."""
    parent: dict[Any, Any] = values
    for part in loc[:-1]:
        below = parent.get(part)
        if not isinstance(below, dict):
            parent.pop(part, None)
            return
        parent = below
    if missing:
        parent[loc[-1]] = copy.deepcopy(_STAND_INS[str(loc[-1])])
    else:
        parent.pop(loc[-1], None)


def _conflicts(file: SpecFile, spec: Section, broken: set[str]) -> Iterator[SpecProblem]:
    """The broken rules of all sections, except rules that depend on a broken key."""
    for place, section in _sections_of(spec, ""):
        for conflict in section.conflicts():
            key, keys = f"{place}{conflict.keys[0]}", {f"{place}{name}" for name in conflict.keys}
            # A mapping may only be empty because its wrong items were taken out.
            emptied = conflict.value == {} and any(_within(wrong, keys) for wrong in broken)
            if not emptied and not any(_within(name, broken) for name in keys):
                shown = _shown(file, key, conflict.value)
                if shown and key not in file.lines:
                    shown += ", the default"
                yield file.problem(key, shown, conflict.problem, conflict.fix)


def _sections_of(section: Section, place: str) -> Iterator[tuple[str, Section]]:
    yield place, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        below = value.items() if isinstance(value, dict) else [("", value)]
        for key, item in below:
            if isinstance(item, Section):
                yield from _sections_of(item, f"{place}{name}.{key}." if key else f"{place}{name}.")


def _within(key: str, places: set[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The place of an error; pydantic marks an error of a mapping's key by an additional last part."""
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, _place(loc)))


def _explain(file: SpecFile, key: str, error: Any, spec: type[Section]) -> SpecProblem:
    kind, loc = error["type"], _place(error["loc"])
    problem, fix = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should"), ""
    shown = _shown(file, key, error["input"])
    if kind == "extra_forbidden":
        # The value may be anything, such as the URL of a webhook.
        problem, shown, fix = "is not a key of the spec", "", _suggest(spec, loc)
    elif kind == "missing":
        description = _field_at(spec, loc).description
        problem, shown, fix = "is missing", "", f"add it: {description}" if description else "add this section"
    elif kind == "string_pattern_mismatch":
        problem, fix = PATTERNS[error["ctx"]["pattern"]]
    elif kind in _SHOULD_BE:
        problem = f"should be {_SHOULD_BE[kind]}"
    elif kind in ("string_too_short", "too_short"):
        problem, fix = "is empty", "give a value"
    return file.problem(key, shown, problem, fix)


def _shown(file: SpecFile, key: str, value: Any) -> str:
    """The value as the error shows it: short, as written, and never a secret or a section that may hold one."""
    value = list(value) if isinstance(value, tuple) else value
    if value is None or _SECRET.search(key) or not _is_plain(value):
        return ""
    text = _HTTP.sub(r"\1/…", redacted(file.written.get(key) or repr(value)))
    return text if len(text) <= 80 else f"{text[:39]}…{text[-40:]}"  # a path's end says more than its middle


def _is_plain(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(item, dict | list | BaseModel) for item in items)


def _suggest(spec: type[Section], loc: tuple[int | str, ...]) -> str:
    section, name = _section_at(spec, loc[:-1]), str(loc[-1])
    near = difflib.get_close_matches(name, section.model_fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    homes = [key for key, field in spec.model_fields.items() if name in _fields_of(field)]
    if homes:
        return f"it belongs under {' or '.join(homes)}"
    return f"known here: {', '.join(section.model_fields)}"


def _field_at(spec: type[Section], loc: tuple[int | str, ...]) -> FieldInfo:
    return _section_at(spec, loc[:-1]).model_fields[str(loc[-1])]


def _section_at(spec: type[Section], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that describes the place `loc` of a spec; the names of jobs are skipped."""
    section: type[BaseModel] = spec
    parts = iter(loc)
    for part in parts:
        field = section.model_fields.get(str(part))
        if field is not None:
            section = next(_models_in(field.annotation), section)
            if get_origin(field.annotation) is dict:
                next(parts, None)
    return section


def _fields_of(field: FieldInfo) -> dict[str, FieldInfo]:
    section = next(_models_in(field.annotation), None)
    return section.model_fields if section else {}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
