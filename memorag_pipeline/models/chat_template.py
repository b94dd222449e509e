"""Whether a model's chat template keeps its input, checked without transformers, which takes seconds to import.

In:  the folder of a model, or its URI.
Out: nothing, if a system and a user turn both appear, or there is no template.
Wrong: a template that drops a turn: `ModelError`. One that cannot be rendered here is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from memorag_pipeline.errors import ModelError
from memorag_pipeline.models.chat import HOLE, left_out

_FILES = ("chat_template.jinja", "tokenizer_config.json")
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def require_turns(place: str, model: str) -> None:
    """Raise ModelError if the chat template of the model at `place` drops a system or a user turn."""
    template, tokens = _read(place)
    if template is None:
        return
    turns = [{"role": "system", "content": HOLE}, {"role": "user", "content": HOLE}]
    shown = _shown(template, turns, tokens)
    if shown is None:  # it may have no system turn; then its text precedes the user's
        shown = _shown(template, [{"role": "user", "content": f"{HOLE}\n\n{HOLE}"}], tokens)
    if shown is not None and shown != len(turns):
        raise ModelError(left_out(f"model {model}", shown, len(turns)))


def _shown(template: str, turns: list[dict[str, str]], tokens: Mapping[str, str]) -> int | None:
    """How many texts a template includes; None if it cannot be rendered."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = json.dumps
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
    try:
        rendered = environment.from_string(template).render(
            messages=turns, add_generation_prompt=True, enable_thinking=False, tools=None, documents=None, **tokens
        )
    except Exception:  # templates are programs, which fail in any way
        return None
    return rendered.count(HOLE)


def _read(place: str) -> tuple[str | None, dict[str, str]]:
    """The template, and the special tokens that it may use."""
    files = {name: _text(f"{place.rstrip('/')}/{name}") for name in _FILES}
    try:
        config = json.loads(files["tokenizer_config.json"] or "{}")
    except ValueError:
        config = {}
    config = config if isinstance(config, dict) else {}
    tokens = {name: _content(config.get(name)) for name in _TOKENS}
    template = files["chat_template.jinja"] or config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None, tokens


def _content(token: Any) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _text(path: str) -> str | None:
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            text: str = file.read().decode("utf-8", "replace")
    except (FileNotFoundError, PermissionError):
        return None
    return text
