"""Rows of like length share a batch, within a budget of tokens; the memory's own weights are not loaded twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.generators.row_batches import batches
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.machine.retry_share import share_of_attempt
from memorag_pipeline.memory.engine import decode as decoding
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.specs.generation import GenerationSpec

MODEL = "package:smollm2-135m-instruct"


def generator(**values: Any) -> LocalGenerator:
    return LocalGenerator(
        GenerationSpec.model_validate({"model": MODEL, "max_new_tokens": 4, "dtype": "float32", **values})
    )


@given(
    st.lists(st.integers(1, 5000), max_size=60),
    st.integers(1, 40),
    st.integers(256, 20_000),
)
def test_batches_keep_the_budget_and_leave_no_row_out(lengths: list[int], most_rows: int, most_tokens: int) -> None:
    found = list(batches(lengths, most_rows, most_tokens))
    assert sorted(number for _, numbers in found for number in numbers) == list(range(len(lengths)))
    for rows, numbers in found:
        assert 1 <= rows <= most_rows
        assert rows == 1 or rows * max(lengths[number] for number in numbers) <= most_tokens
    in_order = [lengths[number] for _, numbers in found for number in numbers]
    assert in_order == sorted(lengths, reverse=True)


def test_short_rows_share_a_batch_that_long_ones_do_not_fit_in() -> None:
    lengths = [100, 1000, 90, 2100, 80, 95]
    assert list(batches(lengths, 4, 2000)) == [(1, [3]), (2, [1]), (4, [0, 5, 2, 4])]
    with share_of_attempt(2):
        assert list(batches(lengths, 4, 2000)) == [(1, [3, 1]), (2, [0, 5, 2, 4])]


def test_replies_stay_in_order_and_the_same_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = load_prompts("en")
    conversations = [
        prompts.answer(f"What is {thing}?", [f"{thing} is here. " * size])
        for thing, size in (("a cat", 1), ("a dog", 16), ("a hen", 2), ("a cow", 9))
    ]
    wide = generator().reply(conversations)
    decoded: list[tuple[int, int]] = []
    original = decoding.decode

    def seen(model: Any, asked: Any, how: Any, rows: int, *rest: Any) -> Any:
        decoded.append((len(asked), rows))
        return original(model, asked, how, rows, *rest)

    monkeypatch.setattr(decoding, "decode", seen)
    finished: list[int] = []
    narrow = generator(batch_tokens=256).reply(conversations, lambda: finished.append(1))
    assert narrow == wide and len(finished) == 4
    assert len({reply.text for reply in wide}) > 1
    assert sum(count for count, _ in decoded) == 4 and {rows for _, rows in decoded} != {16}


def test_the_memory_model_itself_is_the_generator_when_none_is_named(pipeline: Pipeline) -> None:
    settings = AnswerSettings.of_version(pipeline.store.versions.manifest(1))
    memory = load_memory_model(settings.memory, settings.language)
    found = open_generator(settings.generation, settings.memory)
    assert isinstance(found, LocalGenerator)
    assert found._language_model is memory.language_model
