"""Models in this process that think before they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memorag_pipeline.generators.generated import reply_of
from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.memory.engine import decode as decoding
from memorag_pipeline.memory.engine.generation import Generation
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.specs.generation import GenerationSpec
from tests.fixtures.chat_families import FAMILIES, write_family
from tests.generators.conftest import conversation

OPENING = {"deepseek-r1"}


def tokenizer(family: str, folder: Path) -> ChatTokenizer:
    return ChatTokenizer(write_family(family, folder))


@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_known_whether_a_template_opens_a_thought(family: str, tmp_path: Path) -> None:
    assert tokenizer(family, tmp_path).opens_thought == (family in OPENING)


@pytest.mark.models
@pytest.mark.parametrize(
    ("family", "begin", "end"), [("magistral", "[THINK]", "[/THINK]"), ("deepseek-r1", "<think>", "</think>")]
)
def test_marks_of_a_thought_are_seen_in_what_a_model_writes(family: str, begin: str, end: str, tmp_path: Path) -> None:
    model = tokenizer(family, tmp_path)
    marks = [model._marked.token_to_id(mark) for mark in (begin, end)]
    ids = [marks[0], *model.plain("As [2] says."), marks[1], *model.plain("A wall."), model._marked.token_to_id("</s>")]
    written = [token for token in ids if token is not None]
    assert model.text(written) == f"{begin}As [2] says.{end}A wall."
    assert reply_of(Generation(model.text(written), 5, 9, "stop", ()), 20, opened=False).text == "A wall."


@pytest.mark.parametrize(
    ("text", "finished", "opened", "answer"),
    [
        ("I think so.\n</think>\n\nA wall.", "stop", True, "A wall."),
        ("I think so, and then I", "length", True, ""),
        ("<think>I think so, and then I", "length", False, ""),
        ("A wall where ships", "length", False, "A wall where ships"),
    ],
)
def test_a_thought_is_no_reply_of_a_model_here(text: str, finished: Any, opened: bool, answer: str) -> None:
    reply = reply_of(Generation(text, 7, 5, finished, ()), 12, opened)
    assert (reply.text, reply.finish_reason, reply.output_tokens) == (answer, finished, 5)
    assert (reply.error is None) == bool(answer)
    if not answer:
        assert "only a thought" in str(reply.error) and "reached its 12 tokens" in str(reply.error)


def test_what_could_not_be_asked_keeps_its_error() -> None:
    reply = reply_of(Generation("", 7, 0, "error", (), "the prompt has no tokens"), 12, opened=True)
    assert (reply.error, reply.finish_reason) == ("the prompt has no tokens", None)


@pytest.mark.models
def test_the_local_generator_keeps_the_answer_alone(
    tiny_models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(tiny_models["memory"]["model"])
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_family("deepseek-r1", tmp_path)

    def decode(model: Any, prompts: Sequence[Any], how: Any, rows: int, on_finished: Any) -> None:
        for index in range(len(prompts)):
            on_finished(index, Generation("As [2] says.\n</think>\n\nA wall.", 7, 9, "length", ()))

    monkeypatch.setattr(decoding, "decode", decode)
    monkeypatch.setattr(LocalGenerator, "_language_model", SimpleNamespace(context=512))
    spec = GenerationSpec.model_validate({"model": str(tmp_path), "max_new_tokens": 4, "dtype": "float32"})
    (reply,) = LocalGenerator(spec).reply([conversation("What is a quay?")])
    assert (reply.text, reply.error, reply.finish_reason) == ("A wall.", None, "length")
