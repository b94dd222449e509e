"""The result of a question, by the generator's reply."""

from __future__ import annotations

import pytest

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.jobs.answers.answer_batch import answer_of
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.retrieval.passage import Passage

ROW = {"question_id": "1", "question": "What was the weather?", "error": None}
EVIDENCE = [Passage("c1", "d", "file:///d.txt", 0, 27, 0.5, "Heavy rain flooded the town", "s")]


def test_an_answer_is_without_the_marks_of_its_prompt() -> None:
    answer = answer_of(ROW, (), EVIDENCE, Reply("<passage 1>\nHeavy rain.\n</passage 1>", 9, 4, None), 0.0)
    assert (answer.status, answer.answer, answer.used) == ("answered", "Heavy rain.", (1,))


def test_marks_alone_are_no_answer() -> None:
    answer = answer_of(ROW, (), EVIDENCE, Reply("<passage 1> </passage 1>", 9, 4, None), 0.0)
    assert (answer.status, answer.answer, answer.error) == ("error", None, "the generator only repeated its prompt")


@pytest.mark.parametrize("reply", ["", " \n"])
def test_no_text_is_no_answer(reply: str) -> None:
    answer = answer_of(ROW, (), EVIDENCE, Reply(reply, 9, 0, None), 0.0)
    assert (answer.status, answer.error) == ("error", "the generator returned no text")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_its_prompt_again_is_no_answer(language: str) -> None:
    question = str(ROW["question"])
    prompts = load_prompts(language)
    turn = prompts.answer(question, ["Heavy rain"])[1]["content"].partition("</passage 1>")[2]
    for text in (turn, f"<passage 5>\n{turn}", prompts.answer_from_memory(question)):
        answer = answer_of(ROW, (), EVIDENCE, Reply(text, 9, 9, None), 0.0, prompts.said(question))
        assert (answer.status, answer.answer, answer.used, answer.cited_by) == ("error", None, (), None)
