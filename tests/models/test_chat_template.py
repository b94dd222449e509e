"""Templates that drop what they are given are found without transformers, and say what transformers would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import MemoragError, ModelError
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.chat_template import require_turns
from tests.models.small_models import write_tokenizer

KEEPS = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
DROPS = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + KEEPS
LAST = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}<s>assistant{% endif %}"
OTHERS = "{% generation %}{{ no.such.value }}{% endgeneration %}"


@pytest.mark.parametrize(
    ("template", "kept"),
    [
        (KEEPS, True),
        (REFUSES, True),
        (None, True),
        ([{"name": "default", "template": KEEPS}, {"name": "tool_use", "template": DROPS}], True),
        (DROPS, False),
        (LAST, False),
        ([{"name": "default", "template": DROPS}], False),
        ("{{ bos_token + messages[0]['content'] | trim + eos_token }}{{ messages[1]['content'] }}", True),
        ("{{ 'one text for all' }}", False),
    ],
)
def test_a_template_keeps_every_turn_or_is_refused(tmp_path: Path, template: Any, kept: bool) -> None:
    write_tokenizer(tmp_path, **({} if template is None else {"chat_template": template}))
    if kept:
        require_turns(str(tmp_path), "m")
        ChatTokenizer(tmp_path).request("what is a quay", "a wall")
        return
    with pytest.raises(ModelError, match=r"model m: the chat template shows \d of 2 texts that it was given"):
        require_turns(str(tmp_path), "m")
    with pytest.raises(MemoragError, match=r"shows \d of 2 texts"):
        ChatTokenizer(tmp_path).request("what is a quay", "a wall")


def test_a_file_of_its_own_goes_before_the_configuration(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template=KEEPS)
    (tmp_path / "chat_template.jinja").write_text(DROPS, encoding="utf-8")
    with pytest.raises(ModelError, match="of 2 texts"):
        require_turns(str(tmp_path), "m")


def test_what_cannot_be_rendered_here_is_left_to_transformers(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template=OTHERS, bos_token={"content": "<s>"})
    require_turns(str(tmp_path), "m")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps([]), encoding="utf-8")
    require_turns(str(tmp_path), "m")
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    require_turns(str(tmp_path), "m")
