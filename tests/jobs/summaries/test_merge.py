"""Merging many summaries into one, in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.jobs.summaries.merge import merge_texts


class Joining:
    """A generator that joins what it is given, and notes how many texts it read at once."""

    def __init__(self, fails_on: str = "\n") -> None:
        self.fails_on = fails_on
        self.read: list[int] = []

    def reply(
        self, conversations: Sequence[Sequence[str]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        self.read += [len(texts) for texts in conversations]
        return [
            Reply("", 1, 0, "refused") if self.fails_on in texts else Reply("+".join(texts), 10, 1, cost=0.5)
            for texts in conversations
        ]


def settings(budget: int) -> Any:
    """A budget for this many summaries of one token."""
    prompts = SimpleNamespace(merge=lambda texts: list(texts), said=())
    models = SimpleNamespace(generation=SimpleNamespace(max_new_tokens=1))
    return SimpleNamespace(prompts=prompts, budget=budget, models=models)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=4), st.integers(1, 9))
def test_all_parts_are_merged_in_order_and_never_too_many_at_once(sizes: list[int], budget: int) -> None:
    generator, done = Joining(), []
    groups = [[f"{group}.{number}" for number in range(size)] for group, size in enumerate(sizes)]
    merged = merge_texts(groups, generator, settings(budget), lambda: done.append(1))  # type: ignore[arg-type]
    assert [each.text for each in merged] == ["+".join(texts) for texts in groups]
    assert all(2 <= count <= max(2, budget) for count in generator.read)
    assert len(done) == len(groups)
    calls = len(generator.read)
    assert sum(each.output_tokens for each in merged) == calls
    assert sum(each.cost or 0.0 for each in merged) == calls * 0.5


def test_a_group_that_fails_keeps_its_error_and_the_others_are_merged() -> None:
    bad, good = merge_texts([["a", "x"], ["b", "c [2]"]], Joining("x"), settings(2), lambda: None)  # type: ignore[arg-type]
    assert (bad.error, bad.text) == ("refused", None)
    assert (good.error, good.text) == (None, "b+c")


def test_a_text_is_cut_if_one_that_it_was_made_of_was() -> None:
    class Cutting(Joining):
        def reply(self, conversations: Any, on_finished: Any = None) -> list[Reply]:
            replies = super().reply(conversations)
            return [replace(each, finish_reason="length" if "a" in each.text else "stop") for each in replies]

    texts = [["a", "b", "c", "d"], ["e", "f", "g"]]
    first, second = merge_texts(texts, Cutting(), settings(2), lambda: None)  # type: ignore[arg-type]
    assert (first.text, first.finish_reason) == ("a+b+c+d", "length")
    assert (second.text, second.finish_reason) == ("e+f+g", "stop")
