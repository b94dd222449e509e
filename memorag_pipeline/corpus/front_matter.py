"""Front matter of a Markdown text: metadata in YAML, TOML or JSON before its first words.

In:  a text.
Out: the title that it declares, and where the body begins.
Wrong: marked text that is not front matter is body text; front matter with a syntax error still gives its title line,
       if it has one.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import lru_cache
from typing import Any

import yaml

_YAML = re.compile(r"---[ \t]*\n")
_YAML_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.M)
_TOML = re.compile(r"\+\+\+[ \t]*\n")
_TOML_END = re.compile(r"^\+\+\+[ \t]*$", re.M)
_FIELD = re.compile(r"^[A-Za-z_][\w .-]{0,60}[ \t]*:(?:[ \t]|$)", re.M)
_TITLE = re.compile(r"^[Tt]itle:[ \t]*(\S.*)$", re.M)
_LONGEST = 65_536  # characters of front matter
_MOST = 200  # characters of a title
_CONTROLS = {code: " " for code in (*range(32), *range(127, 160))}
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every value as written


@lru_cache(maxsize=1)  # headings, title and chunks of a document ask one after the other
def front_matter(text: str) -> tuple[str | None, int]:
    """The declared title, and the offset after the front matter; None and 0 if there is none."""
    for start, end, read in ((_YAML, _YAML_END, _yaml), (_TOML, _TOML_END, _toml)):
        if opened := start.match(text):
            closed = end.search(text, opened.end(), opened.end() + _LONGEST)
            title = read(text[opened.end() : closed.start()]) if closed else None
            return (None, 0) if closed is None or title is None else (_cleaned(title), closed.end())
    return _json(text) if text.startswith("{") else (None, 0)


def _yaml(matter: str) -> Any:
    """The title, "" if there is none; None if this is not front matter."""
    try:
        found = yaml.load(matter, _LOADER)
    except (yaml.YAMLError, RecursionError, ValueError):
        line = _TITLE.search(matter)
        return (line[1].strip().strip("\"'") if line else "") if _FIELD.search(matter) else None
    if found is None or found == "":
        return ""
    return _title(found)


def _toml(matter: str) -> Any:
    try:
        return _title(tomllib.loads(matter))
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        line = re.search(r"^title[ \t]*=[ \t]*[\"'](.*?)[\"'][ \t]*$", matter, re.M)
        return line[1] if line else None


def _json(text: str) -> tuple[str | None, int]:
    try:
        found, end = json.JSONDecoder().raw_decode(text[:_LONGEST])
    except (ValueError, RecursionError):
        return None, 0
    title = _title(found)
    # Text after it on the same line means it is not front matter; without text after it, it is a JSON document.
    if title is None or text[end : end + 1] != "\n" or not text[end:].strip():
        return None, 0
    return _cleaned(title), end


def _title(found: Any) -> str | None:
    if not isinstance(found, dict):
        return None
    title = next((found[key] for key in ("title", "Title") if key in found), "")
    if isinstance(title, list) and title:
        title = title[0]
    return title if isinstance(title, str) else str(title) if isinstance(title, int | float) else ""


def _cleaned(title: str) -> str | None:
    return " ".join(title.translate(_CONTROLS).split())[:_MOST].strip() or None
