"""The reference of all keys of a corpus spec: Markdown generated from the model. docs/corpus-spec.md ends with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from memorag_pipeline.specs.corpus import json_schema
from memorag_pipeline.specs.location import Location

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
    "boolean": "true, false",
}


def markdown() -> str:
    """One table for each section: key, kind of value, default, purpose."""
    schema = json_schema()
    return "\n".join(_section(schema, "", schema["$defs"])) + "\n"


def _section(schema: dict[str, Any], place: str, definitions: dict[str, Any]) -> Iterator[str]:
    yield f"### {f'`{place}`' if place else 'The file'}\n"
    yield f"{schema['description']}\n"
    yield "| key | value | default | purpose |"
    yield "|---|---|---|---|"
    below = []
    required = schema.get("required", [])
    # Keys that a section shares with others come after its own.
    for key, field in sorted(schema["properties"].items(), key=lambda item: item[0] in Location.model_fields):
        section = _reference(field) or next(map(_reference, field.get("patternProperties", {}).values()), None)
        if section is None:
            default = "required" if key in required else f"`{json.dumps(field['default'], ensure_ascii=False)}`"
            yield f"| `{key}` | {_kind(field)} | {default.replace('`null`', 'none')} | {field['description']} |"
            continue
        named = ".NAME" if "patternProperties" in field else ""
        path = f"{place}.{key}{named}" if place else f"{key}{named}"
        default = "required" if key in required else "none" if "anyOf" in field else "as below"
        yield f"| `{key}` | section | {default} | see `{path}` |"
        below.append((definitions[section], path))
    yield ""
    for section_schema, path in below:
        yield from _section(section_schema, path, definitions)


def _reference(field: Any) -> str | None:
    """The name of the section that a field holds or may hold, if any."""
    if not isinstance(field, dict):
        return None
    if "anyOf" in field:
        return next(filter(None, map(_reference, field["anyOf"])), None)
    return field["$ref"].rpartition("/")[2] if "$ref" in field else None


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if field["type"] == "array":
        return f"list of {_kind(field['items'])}"
    bounds = [
        f"{sign} {field[name]:g}"
        for name, sign in {"exclusiveMinimum": ">", "minimum": "≥", "maximum": "≤"}.items()
        if name in field
    ]
    return " ".join([_TYPES[field["type"]], ", ".join(bounds)]).strip()
