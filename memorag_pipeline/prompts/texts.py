"""The texts of prompts: those of this package and the user's own.

In:  a folder or URI with the layout of this package: LANGUAGE/PURPOSE.yaml, each a mapping of keys to texts.
Out: the texts by language, purpose and key. A file that the user's folder lacks is taken from the package.
Wrong: `SpecError` with every problem: no such folder, no prompt in it, a key missing or unknown, a placeholder missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from memorag_pipeline.errors import SpecError, SpecProblem

Texts = Mapping[str, Mapping[str, Mapping[str, str]]]  # by language, purpose and key

_LARGEST = 1 << 20  # bytes of a prompt file


def languages() -> list[str]:
    """The languages that have prompts."""
    return sorted(_package_texts())


def texts_for(language: str, purpose: str, own: Texts | None = None) -> Mapping[str, str]:
    """The texts of one purpose (the name of its file) by key."""
    return (own or {}).get(language, {}).get(purpose) or _package_texts()[language][purpose]


def own_words(*texts: str, **values: str) -> list[str]:
    """The lines of prompts with `values` in their placeholders and nothing in the others."""
    filled = (Template(text).substitute(defaultdict(str, values)) for text in texts)
    return [line for text in filled for line in text.splitlines() if line.strip()]


def read_own(uri: str, storage_options: Mapping[str, Any] | None = None) -> Texts:
    """The prompts below `uri`, checked against the keys and placeholders of the package's own."""
    import fsspec

    found: dict[str, dict[str, dict[str, str]]] = {}
    problems: list[SpecProblem] = []
    try:
        filesystem, root = fsspec.core.url_to_fs(uri, **(storage_options or {}))
        filesystem.invalidate_cache()  # a listing that this process has made before can miss files
        there = {str(path).removeprefix(str(root)).lstrip("/"): path for path in filesystem.find(root)}
        for name in sorted(there):
            language, _, file = name.partition("/")
            purpose = file.removesuffix(".yaml")
            if purpose == file or purpose not in _package_texts().get(language, {}):
                continue
            where, data = f"{uri.rstrip('/')}/{name}", filesystem.cat_file(there[name], start=0, end=_LARGEST + 1)
            values = _mapping(where, data, problems)
            if values is not None:
                problems += _check(where, values, _package_texts()[language][purpose])
                found.setdefault(language, {})[purpose] = values
    except Exception as error:  # every filesystem has its own kinds
        raise SpecError([SpecProblem(uri, "", "", f"cannot be read ({type(error).__name__})", _FIX)]) from error
    if not found and not problems:
        problems.append(SpecProblem(uri, "", "", "holds no prompts", _FIX))
    if problems:
        raise SpecError(problems)
    return found


_FIX = "give a folder with files such as en/answer.yaml and zh/recall.yaml"


def _mapping(where: str, data: bytes, problems: list[SpecProblem]) -> dict[str, str] | None:
    if len(data) > _LARGEST:
        problems.append(SpecProblem(where, "", "", f"has more than {_LARGEST} bytes", "make it smaller"))
        return None
    try:
        values = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        problem = str(error).splitlines()[0]
        problems.append(SpecProblem(where, "", "", f"is not YAML in UTF-8: {problem}", "correct the file"))
        return None
    if not isinstance(values, dict):
        problems.append(SpecProblem(where, "", "", "is not a mapping of keys to texts", "correct the file"))
        return None
    return values


def _check(where: str, values: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[SpecProblem]:
    """The problems of the texts of a file; `known` are the package's texts of that purpose."""
    for key in values.keys() - known.keys():
        yield SpecProblem(where, str(key), "", "is unknown", f"the keys of this file are {', '.join(known)}")
    for key, text in known.items():
        wanted = sorted(Template(text).get_identifiers())
        value = values.get(key)
        if not isinstance(value, str) or not value.strip():
            problem = "is missing" if key not in values else "is not a text"
            yield SpecProblem(where, key, "", problem, f"write it with {_placeholders(wanted)}")
            continue
        template = Template(value)
        if not template.is_valid():
            yield SpecProblem(where, key, "", "has a $ that begins no placeholder", "write $$ for a plain $")
        missing = [name for name in wanted if name not in template.get_identifiers()]
        if missing:
            yield SpecProblem(where, key, "", f"lacks {_placeholders(missing)}", "put it where it is to be filled in")
        if others := sorted(set(template.get_identifiers()) - set(wanted)):
            yield SpecProblem(where, key, "", f"has {_placeholders(others)}, which nothing fills in", "leave it out")


def _placeholders(names: list[str]) -> str:
    return " and ".join(f"${name}" for name in names) or "no placeholder"


@cache
def _package_texts() -> dict[str, dict[str, dict[str, str]]]:
    folders = [folder for folder in files(__package__).iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    return {
        folder.name: {
            file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8"))
            for file in folder.iterdir()
            if file.name.endswith(".yaml")
        }
        for folder in folders
    }
