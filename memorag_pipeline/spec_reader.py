"""Reading a spec file: YAML, environment variables, relative paths, and errors that a person can act on.

In:  the path of a YAML file.
Out: a checked `CorpusSpec`.
Wrong: no such file, not YAML, an unset variable, an unknown key, a wrong value: one `SpecError` with all of them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from memorag_pipeline.errors import SpecError, SpecProblem
from memorag_pipeline.spec import CorpusSpec

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")
_SECRET = re.compile(r"secret|password|token|\bkey\b|database", re.IGNORECASE)
# Keys whose values are paths or URIs; a relative path there is meant from the spec's own folder.
_PATH_KEYS = {("source", "uris"), ("store", "uri"), ("compute", "pod_template"), ("questions", "uri")}
_FIXES = {
    "missing": "add this key",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "string_type": "give a string (put it in quotes)",
    "list_type": "give a list",
    "dict_type": "give a mapping",
    "model_type": "give a mapping",
}


def read(path: Path) -> CorpusSpec:
    """Read `path`; SpecError lists every problem found."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([SpecProblem(str(path), "", "", f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError([SpecProblem(str(path), "", "", f"is not YAML: {' '.join(str(error).split())}")]) from error
    if not isinstance(raw, dict):
        fix = "start with `corpus: NAME`"
        raise SpecError([SpecProblem(str(path), "", repr(raw)[:80], "is not a mapping of keys to values", fix)])

    problems: list[SpecProblem] = []

    def expand(key: str, text: str) -> str:
        return _expand_variables(text, lambda name: problems.append(_unset(path, key, name)))

    values = _map_strings(raw, expand)
    _resolve_paths(values, path.resolve().parent)
    try:
        spec = CorpusSpec.model_validate(values)
    except ValidationError as error:
        problems.extend(_explain(path, values, error))
        raise SpecError(problems) from None
    if problems:
        raise SpecError(problems)
    return spec


def _unset(path: Path, key: str, name: str) -> SpecProblem:
    return SpecProblem(
        str(path),
        key,
        f"${{{name}}}",
        "names an environment variable that is not set",
        f"set {name}, or write ${{{name}:-default}}",
    )


def _expand_variables(text: str, missing: Callable[[str], None]) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if name in os.environ:
            return os.environ[name]
        if default is None:
            missing(name)
        return default or ""

    return _VARIABLE.sub(value, text)


def _map_strings(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, dict):
        return {k: _map_strings(v, change, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_map_strings(v, change, f"{key}.{i}") for i, v in enumerate(value)]
    return value


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, from the folder of the spec file; URIs and absolute paths stay."""
    for section, value in list(_sections(values)):
        for name, item in value.items():
            local_model = name == "model" and isinstance(item, str) and item.startswith((".", "~"))
            if (section, name) in _PATH_KEYS or local_model:
                value[name] = _map_strings(item, lambda _, text: _absolute(text, folder))
            if (section, name) == ("warehouse", "database") and value.get("destination", "duckdb") == "duckdb":
                value[name] = _map_strings(item, lambda _, text: _absolute(text, folder))


def _sections(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield name, value
            yield from _sections(value)


def _absolute(text: str, folder: Path) -> str:
    if not text or "://" in text:
        return text
    return str((folder / Path(text).expanduser()).resolve())


def _explain(path: Path, values: dict[str, Any], error: ValidationError) -> Iterator[SpecProblem]:
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"] if part != "[key]")
        shown = "" if item["type"] == "missing" or _SECRET.search(key) else _show(item.get("input"))
        problem, fix = str(item["msg"]).removeprefix("Value error, "), _FIXES.get(item["type"], "")
        if item["type"] == "extra_forbidden":
            problem, fix = "is not a key of the spec", _suggest(item["loc"])
        elif item["type"] == "missing":
            problem = "is missing"
        elif item["type"] == "string_pattern_mismatch":
            fix = "use 2 to 63 of a-z, 0-9, _ and -, starting with a letter or digit"
        yield SpecProblem(str(path), key, shown, problem, fix)


def _show(value: Any) -> str:
    """The value as the error shows it: short, and never a whole section, which may hold a secret."""
    if isinstance(value, dict):
        return ""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _suggest(loc: tuple[int | str, ...]) -> str:
    section = _section_at(CorpusSpec, loc[:-1])
    known = sorted(section.model_fields) if section else []
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _section_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that describes the place `loc` of the spec; names of a mapping (jobs) are stepped over."""
    found: type[BaseModel] | None = model
    for part in loc:
        if found is None:
            return None
        if str(part) in found.model_fields:
            annotation = found.model_fields[str(part)].annotation
            found = next(_models_in(annotation), None)
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None or isinstance(annotation, UnionType | type(Union[int, str])):  # noqa: UP007
        for argument in get_args(annotation):
            yield from _models_in(argument)
