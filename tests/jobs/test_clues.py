"""Clues are what is left of a model's lines when numbering, echoes, repetition and noise are gone."""

from __future__ import annotations

import pytest

from memorag_pipeline.jobs.clues import MAX_CLUES, parse_clues
from memorag_pipeline.jobs.prompts import load_prompts

QUESTION = "What happens when the pass statement is executed?"


def clues(text: str, kind: str = "spans", language: str = "en", question: str = QUESTION) -> list[str]:
    said = ["I have read the documents and remember them.", load_prompts(language).recall(kind, question)]
    return parse_clues(kind, text, question, said)


@pytest.mark.parametrize(
    "line",
    [
        "1. pass is a null operation",
        "(2) pass is a null operation",
        " - pass is a null operation",
        '* "pass is a null operation"',
        "Quote 1: “pass is a null operation”",
        "1. Question: pass is a null operation",
        'The document states that "pass is a null operation"',
        "The answer to this question is no. pass is a null operation",
    ],
)
def test_numbers_bullets_labels_and_quotation_marks_are_taken_off(line: str) -> None:
    assert clues(line) == ["pass is a null operation"]


def test_words_in_quotation_marks_inside_a_clue_stay() -> None:
    text = '"break" may only occur syntactically nested in a "for" or "while" loop'
    assert clues(text) == [text]


@pytest.mark.parametrize(
    "noise",
    [
        "",
        "   ",
        "************",
        "pass",
        "Here are the sentences that answer it:",
        "Question: What happens when the pass statement is executed?",
        "Quote the sentences from the text above that answer this question, word for word.",
        "I have read the documents and remember",
        "The answer to this question is yes.",
        "The pass statement is executed.",
        "the end of the end of the end of the end of the end of the end of",
        "word " * 200,
    ],
)
def test_noise_is_dropped(noise: str) -> None:
    assert clues(f"{noise}\nIt is useful as a placeholder.") == ["It is useful as a placeholder."]


def test_a_clue_comes_once() -> None:
    assert clues("It is useful as a placeholder.\n2. It is useful as a placeholder\nNothing else happens here.") == [
        "It is useful as a placeholder.",
        "Nothing else happens here.",
    ]


def test_no_more_than_the_most_useful_number_is_kept() -> None:
    lines = [f"{word} stands in sentence {word}" for word in "abcdefghijkl"]
    assert clues("\n".join(lines)) == lines[:MAX_CLUES]


def test_a_draft_is_one_clue() -> None:
    assert clues("Nothing happens.\nIt is a\nplaceholder.", kind="draft") == ["Nothing happens. It is a placeholder."]


def test_chinese_counts_characters() -> None:
    text = "1、记忆模型先阅读整个语料。\n不行\n问题：它读了什么？\n问题2：记忆模型如何阅读语料？"  # noqa: RUF001
    assert clues(text, kind="surrogates", language="zh", question="它读了什么？") == [  # noqa: RUF001
        "记忆模型先阅读整个语料。",
        "记忆模型如何阅读语料？",  # noqa: RUF001
    ]
