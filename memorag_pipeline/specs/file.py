"""A spec file as plain values: YAML with its line numbers, environment variables put in, relative paths made absolute.

In:  the path of a YAML file.
Out: a `SpecFile`: nested dicts and lists, where each key stands, what was written before variables were put in.
Wrong: no such file, not YAML, not a mapping: `SpecError`. A key given twice or an unset variable is in `problems`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memorag_pipeline.errors import SpecError, SpecProblem

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")
# Keys whose values are paths or URIs; a relative path there is meant from the spec's own folder.
_PATH_KEYS = {
    ("source", "uris"),
    ("store", "uri"),
    ("memory", "adapter"),
    ("compute", "pod_template"),
    ("prompts", "uri"),
    ("", "prompts"),
    ("questions", "uri"),
    ("data", "text"),
    ("data", "instructions"),
    ("data", "contexts"),
    ("data", "corpus"),
    ("evaluation", "questions"),
    ("", "begin_with"),
}


@dataclass
class SpecFile:
    """The values of a spec file. Keys are dotted paths, items of a list by number: `jobs.daily.clues.0`."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[SpecProblem] = field(default_factory=list)

    def problem(self, key: str, value: str, problem: str, fix: str = "") -> SpecProblem:
        """A problem at `key`, with the line of the key or of the nearest key above it."""
        place = key
        while place and place not in self.lines:
            place = place.rpartition(".")[0]
        return SpecProblem(str(self.path), key, value, problem, fix, self.lines.get(place))


def load(path: Path) -> SpecFile:
    """Read `path`."""
    file = SpecFile(path)
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is not None:
            _note_lines(file, node, "")
        raw = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise SpecError([SpecProblem(str(path), "", "", f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError([_not_yaml(path, error)]) from error
    if not isinstance(raw, dict):
        what = "is empty" if raw is None else f"is a {type(raw).__name__}, not a mapping of keys to values"
        raise SpecError([SpecProblem(str(path), "", "", what, "start with `corpus: NAME` or `adapter: NAME`")])
    file.values = _map_strings(raw, lambda key, text: _put_in_variables(file, key, text))
    _resolve_paths(file.values, path.resolve().parent)
    return file


def _not_yaml(path: Path, error: Exception) -> SpecProblem:
    """Without the lines around the error, which PyYAML would quote: they may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    column = f" at column {mark.column + 1}" if mark else ""
    fix = "write it as YAML, in UTF-8; put a text with special characters in quotes"
    return SpecProblem(str(path), "", "", f"is not YAML{column}: {reason}", fix, mark.line + 1 if mark else None)


def _note_lines(file: SpecFile, node: yaml.Node, key: str) -> None:
    """Remember the line of each key; YAML lets a key appear twice and would silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _note_line(file, f"{key}.{position}", item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            below = f"{key}.{name.value}" if key else str(name.value)
            if below in seen:
                first = f"is given twice, first on line {file.lines[below]}"
                file.lines[below] = name.start_mark.line + 1
                file.problems.append(file.problem(below, "", first, "keep one of the two"))
            seen.add(below)
            _note_line(file, below, name)
            _note_lines(file, value, below)


def _note_line(file: SpecFile, key: str, node: yaml.Node) -> None:
    file.lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.CollectionNode):
        _note_lines(file, node, key)


def _put_in_variables(file: SpecFile, key: str, text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        file.written[key] = text
        if name not in os.environ and default is None:
            file.problems.append(
                file.problem(
                    key,
                    match[0],
                    "names an environment variable that is not set",
                    f"set {name}, or write ${{{name}:-default}}",
                )
            )
        return os.environ.get(name, default or "")

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
    for section, value in [("", values), *_sections(values)]:
        for name, item in value.items():
            local_model = name == "model" and isinstance(item, str) and item.startswith((".", "~"))
            duckdb = (section, name) == ("warehouse", "database") and value.get("destination", "duckdb") == "duckdb"
            is_path = (section, name) in _PATH_KEYS and not isinstance(item, dict)
            if is_path or local_model or duckdb:
                value[name] = _map_strings(item, lambda _, text: _absolute(text, folder))


def _sections(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield name, value
            yield from _sections(value)


def _absolute(text: str, folder: Path) -> str:
    if not text or "://" in text or text.startswith("package:"):
        return text
    return str((folder / Path(text).expanduser()).resolve())
