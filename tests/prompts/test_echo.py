"""What a reply repeats of its prompt is taken out of it; an answer that uses words of the question stays."""

from __future__ import annotations

import pytest

from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.prompts.echo import without_echo

QUESTION = "What is baggage used for?"
SAID = load_prompts("en").said(QUESTION)


@pytest.mark.parametrize(
    "reply",
    [
        "Question: What is baggage used for?",
        "What is baggage used for?",
        "**Question:** What is baggage used for?\n",
        "Question: What is baggage used for?\nQuestion: What is baggage used for?",
        "<passage 5>\nQuestion: What is baggage used for?",
        "Question: What is a span?",
        "Answer the question in one or two sentences. Use only the passages above, and put the number of the passage"
        " behind what you take from it, like [1]. If they do not tell, say so.\nQuestion: What is baggage used for?",
        "what is baggage used for",
        "Question: What is baggage used for?\nAnswer:",
        "<passage 5>",
    ],
)
def test_the_prompt_alone_is_nothing(reply: str) -> None:
    assert without_echo(reply, SAID) == ""


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("Question: What is baggage used for?\nAnswer: To pass context [1].", "To pass context [1]."),
        ("Q: What is baggage used for?\n\nA: To pass context.", "To pass context."),
        ("What is baggage used for? It passes context.", "It passes context."),
        ("<passage 5>\nBaggage passes context.", "Baggage passes context."),
        ("If they do not tell, say so.\n\nIt passes context.", "It passes context."),
        ("Question: What is a span?\nA span is an operation.", "A span is an operation."),
    ],
)
def test_what_follows_the_prompt_is_the_answer(reply: str, rest: str) -> None:
    assert without_echo(reply, SAID) == rest


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("baggage", "Baggage: what travels with a request."),
        (QUESTION, "What is baggage used for is not said in the passages."),
        (QUESTION, "Baggage is used for context. What is baggage used for? That."),
        (QUESTION, "A question is not an answer: it asks."),
        ("Who is Rust's author", "Who is Rust's author's employer is told: Mozilla."),
        ("行李是什么", "行李是随请求传递的上下文。"),
    ],
)
def test_an_answer_keeps_the_words_of_the_question(question: str, answer: str) -> None:
    assert without_echo(answer, load_prompts("en").said(question)) == answer


def test_a_question_in_chinese_is_no_answer_to_itself() -> None:
    question = "行李有什么用途\uff1f"
    said = load_prompts("zh").said(question)
    assert without_echo(f"问题\uff1a{question}", said) == ""
    assert without_echo(f"问题\uff1a{question}\n回答\uff1a传递上下文。", said) == "传递上下文。"
