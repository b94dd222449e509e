"""A model's thoughts are removed from its answer, and answers about thoughts stay complete."""

from __future__ import annotations

import pytest

from memorag_pipeline.models.thoughts import Spoken, opens_thought, spoken

ANSWER = "A quay is a wall. [1]"


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>\nI must not say this.\n</think>\n\n{ANSWER}",
        f"\n <THINK>a</THINK>{ANSWER}",
        f"<think >a</think>\n<think>b\n\nc</think>{ANSWER}",
        f"<thinking>a</thinking>\n{ANSWER}",
        f"<thought>a</thought>\n{ANSWER}",
        f"<reasoning>a [2]</reasoning>\n{ANSWER}",
        f"<reflection>a</reflection>{ANSWER}",
        f"<seed:think>a</seed:think>{ANSWER}",
        f"[THINK]a [2][/THINK]{ANSWER}",
        f"◁think▷a◁/think▷{ANSWER}",
        f"<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
        f"<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>{ANSWER}<|end_of_solution|>",
        f"<|channel>thought\na<channel|>{ANSWER}",
        f"<unused94>thought\na<unused95>{ANSWER}",
        f"I think a quay\nis a wall.\n</think>\n\n{ANSWER}",
        f"a</think>b</think>{ANSWER}",
        f"[2] is best[/THINK]{ANSWER}",
        f"<think>I write <think> first, then\n</think>{ANSWER}",
        f"<think>a <think>b</think> c</think>{ANSWER}",
        f"<think>I close it with `</think>` at the end.</think>{ANSWER}",
        f"<think>```\nno end of this fence\n</think>{ANSWER}",
        f"{ANSWER}\n<think>Did I cite it?</think>",
        f"{ANSWER}\n\n<think>Should I say more, such as",
        f"<think>a</think><answer>\n{ANSWER}\n</answer>",
        f"<think>a</think>\n<response>{ANSWER}</response>",
        f"<think></think>{ANSWER}",
        f"<|channel|>analysis<|message|>a [2]<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
        f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=x<|message|>b<|call|>"
        f"<|start|>assistant<|channel|>final <|constrain|>text<|message|>{ANSWER}",
        f'analysis"Quay" is asked for.assistantfinal{ANSWER}',
    ],
)
def test_a_thought_is_no_part_of_the_answer(reply: str) -> None:
    assert spoken(reply) == Spoken(ANSWER, thought=True)


def test_a_thought_between_sentences_is_left_out() -> None:
    assert spoken("A quay <think>say it</think>is a wall.") == Spoken("A quay is a wall.", True)
    assert spoken("Well.\n<think>say it</think>\nA wall.").text == "Well.\n\nA wall."


@pytest.mark.parametrize(
    "reply",
    [
        "<think>\nThe user asks about the quay and I reason on",
        "  [THINK]The user",
        "The user asks.\n</think>\n",
        "<think>a</think>",
        "<think>",
        "<|channel|>analysis<|message|>The user asks",
        "analysisThe user asks",
        "<think>a</think>\n<answer></answer>",
    ],
)
def test_a_reply_may_be_a_thought_alone(reply: str) -> None:
    assert spoken(reply) == Spoken("", thought=True)


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        "",
        "R1 thinks between <think>…</think> marks. [1]",
        "The mark `</think>` ends a thought. [1]",
        'It begins with "<think>" and ends with "</think>".',
        "The tag <think> starts a thought, which is not shown. [2]",
        "Write it so:\n```\n<think>\nStep by step\n</think>\n```\nThen answer.",
        "The analysis of the harbour is in part 2. [1]",
        "analysis of the harbour: see part 2",
        "<answer>is a tag of XML",
    ],
)
def test_an_answer_without_thoughts_stays_as_it_is(answer: str) -> None:
    assert spoken(answer) == Spoken(answer)


def test_a_thought_that_the_template_has_opened_needs_no_mark() -> None:
    assert spoken(f"\nI think so.\n</think>\n\n{ANSWER}", opened=True) == Spoken(ANSWER, True)
    assert spoken("\nI think so, and", opened=True) == Spoken("", True)
    assert spoken(f"<think>a</think>{ANSWER}", opened=True) == Spoken(ANSWER, True)


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|assistant|>\n<think>\n", True),
        ("<|assistant|>[THINK]", True),
        ("<|assistant|>\n<think>\n\n</think>\n\n", False),
        ("<|assistant|>\n", False),
        ("Use <think> to think.<|assistant|>", False),
    ],
)
def test_templates_that_open_a_thought_are_known(prompt: str, opens: bool) -> None:
    assert opens_thought(prompt) == opens
