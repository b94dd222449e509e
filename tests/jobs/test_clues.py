# ruff: noqa: RUF001 - signs of Chinese texts
"""Clues are what is left of a model's lines when numbering, echoes, repetition and noise are gone."""

from __future__ import annotations

import pytest

from memorag_pipeline.jobs.clues import MAX_CLUES, parse_clues
from memorag_pipeline.prompts.answer_prompts import load_prompts

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
        "a) pass is a null operation",
        "Step 2: pass is a null operation",
        "1. **pass** is a null operation",
        "**pass is a null operation**",
        "\u2460 pass is a null operation",
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


@pytest.mark.parametrize(
    "number",
    [
        "一、",
        "十二、",
        "（1） ",
        "（二）",
        "(三)",
        "第一，",
        "第二、",
        "首先，",
        "①",
        "1、",
        "２．",
        "二：",
        "3．问题：",
    ],
)
def test_chinese_numbers_are_taken_off(number: str) -> None:
    assert clues(f"{number}记忆模型先阅读整个语料。", language="zh", question="它读了什么？") == [
        "记忆模型先阅读整个语料。"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "第一次世界大战爆发于一九一四年",
        "一九一四年，大战爆发了",
        "3.14 is about the ratio of circles",
        "2 ** 3 ** 2 is 512",
    ],
)
def test_numbers_that_belong_to_a_clue_stay(text: str) -> None:
    assert clues(text) == [text]


def test_chinese_counts_characters() -> None:
    text = "1、记忆模型先阅读整个语料。\n不行\n问题：它读了什么？\n问题2：记忆模型如何阅读语料？"
    assert clues(text, kind="surrogates", language="zh", question="它读了什么？") == [
        "记忆模型先阅读整个语料。",
        "记忆模型如何阅读语料？",
    ]


@pytest.mark.parametrize(
    ("language", "kind", "question", "written", "kept"),
    [
        (
            "en",
            "spans",
            "What has become the secret to economic growth?",
            "The secret to economic growth has become the credit market imperfection approach.",
            ["The secret to economic growth has become the credit market imperfection approach."],
        ),
        (
            "en",
            "surrogates",
            "What can the growth elasticity of poverty depend on?",
            "What can the growth elasticity of poverty depend on?",
            [],
        ),
        (
            "zh",
            "spans",
            "林永康有几个孩子？",
            "林永康有几个孩子？\n\n请从上文中逐字引用能够回答下面问题的句子，每行一句。\n问\ufffd",
            [],
        ),
        (
            "zh",
            "surrogates",
            "林永康有几个孩子？",
            "林永康有几个孩子？\n\n这是一个简短的问题，可以用下面的内容来揣慨。\n\n# 阿閦",
            ["这是一个简短的问题，可以用下面的内容来揣慨。"],
        ),
    ],
)
def test_what_smollm2_135m_wrote(language: str, kind: str, question: str, written: str, kept: list[str]) -> None:
    assert clues(written, kind, language, question) == kept
