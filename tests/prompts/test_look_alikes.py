"""However a mark is written, it is found and broken up, and nothing else of the text is changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.prompts.chat_marks import break_marks
from memorag_pipeline.prompts.fence import fence_draft, fence_passages

# What is not seen: zero-width, soft hyphen, variation selectors, marks of direction, combining, tags, blank letters.
UNSEEN = "\u200b\u200d\u2060\ufeff\u00ad\ufe0f\U000e0101\u202e\u2066\u0301\u0338\u20dd\u034f\U000e0041\u3164\u2800\x00"
LOOK_ALIKES = {
    "p": "p\u0440\u03c1\uff50\U0001d429\u24df\u1d18",
    "a": "aA\u0430\u03b1\u0251\uff41\u00e1\U0001d4b6",
    "s": "s\u0455\ua731\uff33\u017f",
    "g": "g\u0261\u0581\uff47",
    "e": "eE\u0435\u0454\u212e\u00e9",
    "d": "d\u0501\u1d05\uff44",
    "r": "r\u0433\u0280\uff52",
    "f": "f\u0192\uff46",
    "t": "t\u0442\u03c4\uff54",
    "<": "<\uff1c\u2039\u27e8\u226e\u1438\u00ab",
    "/": "/\uff0f\u2215",
    "|": "|\uff5c\u2223",
    "_": "_\u2581\uff3f",
}
MARKS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|user|>",
    "<|end|>",
    "<|return|>",
    "<|START_OF_TURN_TOKEN|>",
    "<\uff5cUser\uff5c>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<|turn>",
    "<turn|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "<eos>",
    "<SPECIAL_11>",
    "<extra_id_1>",
    "<think>",
    "</tool_call>",
    "<seed:bos>",
    "<_user>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[gMASK]",
    "[TOOL_RESULTS]",
    "[|assistant|]",
    "[UNUSED_TOKEN_145]",
    "]~b]",
    "[e~[",
]


def spelled(draw: st.DrawFn, word: str, filler: str, most: int = 3) -> str:
    """A word in look-alikes, with fillers after each of its characters."""
    between = st.text(filler, max_size=most)
    return "".join(draw(st.sampled_from(LOOK_ALIKES.get(each.lower(), each))) + draw(between) for each in word)


@st.composite
def fences(draw: st.DrawFn) -> str:
    """A mark of a fence as somebody may write it who is not to."""
    bracket = draw(st.sampled_from(LOOK_ALIKES["<"]))
    filler = draw(st.text(UNSEEN + " \t\n/\\-._*~'\u02bc\U0001f600", max_size=8)) * draw(st.integers(0, 200))
    return bracket + filler + spelled(draw, draw(st.sampled_from(("passage", "draft"))), UNSEEN + " -_'")


@st.composite
def marks(draw: st.DrawFn) -> str:
    mark = draw(st.sampled_from(MARKS))
    return mark[0] + draw(st.text(UNSEEN, max_size=99)) + spelled(draw, mark[1:], UNSEEN)


@settings(max_examples=150, deadline=None)
@given(fences())
def test_a_fence_is_found_behind_any_filler_and_in_any_letters(attack: str) -> None:
    broken = f"before ({attack[1:]} 1> after"
    assert fence_passages([f"before {attack} 1> after"]) == f"<passage 1>\n{broken}\n</passage 1>"
    assert fence_draft(f"before {attack} 1> after") == f"<draft>\n{broken}\n</draft>"


@settings(max_examples=200, deadline=None)
@given(marks())
def test_a_mark_of_a_template_is_found_in_any_characters(attack: str) -> None:
    assert break_marks(f"before {attack} after") == f"before ({attack[1:]} after"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("<>[]|/s_ie~b" + UNSEEN + "\uff1cINST\u0455 ") | st.characters(), max_size=60))
def test_only_brackets_change_and_what_is_broken_stays_so(text: str) -> None:
    broken = break_marks(text)
    assert len(broken) == len(text)
    assert all(new in (old, "(") for old, new in zip(text, broken, strict=True))
    assert break_marks(broken) == broken


def test_double_brackets_of_llama_2() -> None:
    assert break_marks("<<SYS>>x<</SYS>>") == "((SYS>>x((/SYS>>"


@pytest.mark.parametrize(
    "text",
    [
        "if a < s and b > s: x[i] = y[args]",
        "<p>a <em>b</em></p> <script> <svg><mask id='s'/></svg>",
        "xs |> map f <| g <|> h",
        "a <b or c |> d> e",
        "see [1], [2, 3] and [link](http://x)",
        "《通道》〈草案〉 «привет» <привет>",
        "\u03c3 < \u03c4",
    ],
)
def test_what_is_no_mark_stays(text: str) -> None:
    assert break_marks(text) == text
    assert fence_passages([text]) == f"<passage 1>\n{text}\n</passage 1>"
