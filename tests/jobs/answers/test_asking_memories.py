"""How memories are asked: how many rows at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memorag_pipeline.jobs.answers.recall import answers_of_memory
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.machine.retry_share import share_of_attempt
from memorag_pipeline.memory.engine.generation import Generation
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec

QUESTIONS = [f"What is said of the quay {number}?" for number in range(100)]


class CountedModel:
    """A memory model that answers nothing and tells how many rows it was to decode at a time."""

    def __init__(self) -> None:
        self.stream = SimpleNamespace(tokenizer=SimpleNamespace(plain=str.split, opens_thought=False))
        self.rows: list[int] = []

    def generate(self, memory: Any, prompts: Any, decoding: Any, on_finished: Any, batch_size: int) -> None:
        self.rows.append(batch_size)
        for number, _ in enumerate(prompts):
            on_finished(number, Generation("", 0, 0, "stop", ()))


def rows_at_a_time(attempt: int = 1, **generation: int) -> list[int]:
    model, answered = CountedModel(), list[int]()
    settings = AnswerSettings(
        language="en",
        memory=MemorySpec(model="m"),
        generation=GenerationSpec(model="m", **generation),  # type: ignore[arg-type]
        generation_digest="",
        mode="memory_only",
    )
    with share_of_attempt(attempt):
        answers_of_memory(model, None, QUESTIONS, settings, lambda number, _: answered.append(number))  # type: ignore[arg-type]
    assert sorted(answered) == list(range(len(QUESTIONS)))
    return model.rows


@pytest.mark.parametrize(("on_gpu", "usual"), [(False, 16), (True, 64)])
def test_a_gpu_asks_more_rows_at_a_time(on_gpu: bool, usual: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    assert rows_at_a_time() == [usual]
    assert rows_at_a_time(batch_size=80) == [80]
    assert rows_at_a_time(batch_size=80, ask_rows=24) == [24]
    assert rows_at_a_time(attempt=2) == [usual // 2]


def test_rows_over_a_memory_keep_to_the_tokens_of_a_batch() -> None:
    assert max(rows_at_a_time(ask_rows=64, batch_tokens=1024)) < 16
