"""A spec file as plain values: YAML with line numbers, environment variables expanded, relative paths made absolute.

In:  the path of a YAML file.
Out: a `SpecFile`: nested dicts and lists, the line of each key, the text before variables were expanded.
Wrong: a missing file, invalid YAML, YAML out of bounds or not a mapping is a `SpecError`. A duplicate key, an unset
       variable or an impossible path is in `problems`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memorag_pipeline.errors import SpecError, SpecProblem
from memorag_pipeline.specs.bounded_yaml import BoundedLoader, OutOfBoundsError, bad_character, without_bad_characters
from memorag_pipeline.specs.jobs import DESTINATIONS, WarehouseSpec

SUFFIXES = (".yaml", ".yml")
LARGEST = 256 << 10  # bytes: hundreds of times a long spec
# PyYAML quotes what it did not expect, which may be a secret; signs and its own words, such as '<block end>', are none.
_QUOTED = re.compile(r"'.*?'|\".*?\"")
_SIGN = 2  # characters
# Of a key that stands too far to the left or to the right, or after a value.
_INDENT = re.compile(r"<block end>|mapping values are not allowed|could not find expected ':'|<block mapping start>")
_OWN = "x-"  # a key at the top that begins so is the user's own: a place for anchors
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")
# Keys whose values are paths or URIs; a relative path is relative to the spec's folder.
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
        """A problem at `key`."""
        return SpecProblem(str(self.path), key, value, problem, fix, self.line_of(key))

    def line_of(self, key: str) -> int | None:
        """The line of a key, or of the nearest key above it."""
        place = key
        while place and place not in self.lines:
            place = place.rpartition(".")[0]
        return self.lines.get(place)


def spec_files(folder: Path) -> list[Path]:
    """The spec files of a folder, in order; none where there is no folder."""
    return sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}"))


def load(path: Path) -> SpecFile:
    """Read `path`."""
    file = SpecFile(path)
    text = _read(path)
    try:
        loader = BoundedLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _note_lines(file, node, "")
        raw = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise SpecError([_not_yaml(path, error)]) from None  # its text quotes lines
    if not isinstance(raw, dict):
        what = "is empty" if raw is None else f"is a {type(raw).__name__}, not a mapping of keys to values"
        raise SpecError([SpecProblem(str(path), "", "", what, "start with `corpus: NAME` or `adapter: NAME`")])
    raw = {key: value for key, value in raw.items() if not key.startswith(_OWN)}
    file.values = _map_strings(raw, lambda key, text: _put_in_variables(file, key, text))
    _resolve_paths(file, path.resolve().parent)
    return file


def _read(path: Path) -> str:
    """The text of a file. Anything else, such as a pipe, might never end, or never start."""
    fix = ""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            reason, fix = f"is {what}, not a file", "take it out of the folder of specs"
        else:
            with path.open("rb") as file:
                data = file.read(LARGEST + 1)
            if len(data) <= LARGEST:
                return data.decode("utf-8")
            reason, fix = f"has more than {LARGEST:,} bytes", "put lists that long into patterns"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError as error:
        reason = f"is not YAML: {error.reason} at byte {error.start + 1}"
        fix = "write it as YAML, in UTF-8; put a text with special characters in quotes"
    raise SpecError([SpecProblem(str(path), "", "", reason, fix)])


def _not_yaml(path: Path, error: yaml.YAMLError) -> SpecProblem:
    """Without the lines around the error, which PyYAML would quote: they may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    reason = _QUOTED.sub(_only_signs, reason)
    column, line = (f" at column {mark.column + 1}", mark.line + 1) if mark else ("", None)
    if isinstance(error, OutOfBoundsError):
        return SpecProblem(str(path), "", "", f"{reason} (found{column})", str(error.note), line)
    return SpecProblem(str(path), "", "", f"is not YAML{column}: {reason}", _fix_of(reason), line)


def _fix_of(reason: str) -> str:
    """What to do about what PyYAML says."""
    if "\\t" in reason:
        return "indent with spaces: YAML takes no tabs there"
    if _INDENT.search(reason):
        return (
            "correct the indent of this line or of the one before it: the keys of one section begin in the same column;"
            " put a text that holds `: ` in quotes"
        )
    return "write it as YAML, in UTF-8; put a text with special characters in quotes"


def _only_signs(quoted: re.Match[str]) -> str:
    text = quoted[0][1:-1]
    return quoted[0] if len(text) <= _SIGN or text.startswith("<") else f"{quoted[0][0]}…{quoted[0][0]}"


def _note_lines(file: SpecFile, node: yaml.Node, key: str) -> None:
    """Remember the line of each key; YAML allows a duplicate key and would silently use the last."""
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

    result, bad = without_bad_characters(_VARIABLE.sub(value, text))
    if bad is not None:
        file.problems.append(file.problem(key, text, bad_character(bad), "correct the environment variable"))
    return result


def _map_strings(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, dict):
        return {k: _map_strings(v, change, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_map_strings(v, change, f"{key}.{i}") for i, v in enumerate(value)]
    return value


def _resolve_paths(file: SpecFile, folder: Path) -> None:
    """Make relative paths absolute, from the folder of the spec file; URIs and absolute paths stay."""

    def absolute(key: str, text: str) -> str:
        if not text or "://" in text or text.startswith("package:"):
            return text
        try:
            return str((folder / Path(text).expanduser()).resolve())
        except (RuntimeError, OSError, ValueError):  # no such user, or links in a circle
            problem = "is not a path: ~ names an unknown user, or links form a loop"
            file.problems.append(file.problem(key, repr(text), problem, "write the whole path"))
            return text

    for place, section, value in [("", "", file.values), *_sections(file.values, "")]:
        for name, item in value.items():
            local_model = name == "model" and isinstance(item, str) and item.startswith((".", "~"))
            of_file = (section, name) == ("warehouse", "database") and _is_file(value)
            is_path = (section, name) in _PATH_KEYS and not isinstance(item, dict)
            if is_path or local_model or of_file:
                value[name] = _map_strings(item, absolute, f"{place}{name}")


def _is_file(warehouse: dict[str, Any]) -> bool:
    kind = warehouse.get("destination", WarehouseSpec.model_fields["destination"].default)
    return isinstance(kind, str) and kind in DESTINATIONS and DESTINATIONS[kind].is_file


def _sections(values: dict[str, Any], place: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The mappings below `values`: the place of their keys, their name, and their values."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{place}{name}.", name, value
            yield from _sections(value, f"{place}{name}.")
