"""The searches for a question and its clues."""

from __future__ import annotations

import pytest

from memorag_pipeline.jobs.answers.retrieve import retrieve_evidence
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import RetrievalSpec


class Search:
    """A search that finds nothing and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        self.asked += queries
        return [[] for _ in queries]


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("rrf", ["Who barks?", "Who barks? dogs do", "Who sleeps?"]),
        ("union", ["Who barks?", "dogs do", "Who sleeps?"]),
    ],
)
def test_a_clue_is_searched_once_behind_its_question_and_for_a_union_by_itself(
    fusion: str, expected: list[str]
) -> None:
    settings = AnswerSettings(
        language="en",
        memory=MemorySpec(model="none"),
        generation=GenerationSpec(model="none"),
        generation_digest="",
        retrieval=RetrievalSpec.model_validate({"fusion": fusion}),
    )
    search = Search()
    clues = [["dogs do", "dogs do", "Who barks?"], []]
    assert retrieve_evidence(search, ["Who barks?", "Who sleeps?"], clues, settings, len) == [[], []]  # type: ignore[arg-type]
    assert search.asked == expected
