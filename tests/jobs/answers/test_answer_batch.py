"""The result of a question, by the generator's reply."""

from __future__ import annotations

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.jobs.answers.answer_batch import answer_of
from memorag_pipeline.retrieval.passage import Passage

ROW = {"question_id": "1", "question": "What was the weather?", "error": None}
EVIDENCE = [Passage("c1", "d", "file:///d.txt", 0, 27, 0.5, "Heavy rain flooded the town", "s")]


def test_an_answer_is_without_the_marks_of_its_prompt() -> None:
    answer = answer_of(ROW, (), EVIDENCE, Reply("<passage 1>\nHeavy rain.\n</passage 1>", 9, 4, None), 0.0)
    assert (answer.status, answer.answer, answer.used) == ("answered", "Heavy rain.", (1,))


def test_marks_alone_are_no_answer() -> None:
    answer = answer_of(ROW, (), EVIDENCE, Reply("<passage 1> </passage 1>", 9, 4, None), 0.0)
    assert (answer.status, answer.answer, answer.error) == ("error", None, "the generator returned no text")
