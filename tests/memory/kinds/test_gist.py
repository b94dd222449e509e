"""Memories of kind gist: each window's summary depends only on that window, and the summaries are read as a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.kinds import gist
from memorag_pipeline.memory.kinds.gist import GistMemory
from tests.memory.conftest import MakeModel, assert_same, same_bits

WINDOW = 96
TEXTS = ("The lambda expression makes a function. ", "The pass statement does nothing. ", "A loop ends with break. ")


def stream(model: Any, times: int = 14) -> list[int]:
    """The opening and some text, 3 windows and a part of a fourth."""
    return [*model.stream.opening, *model.stream.tokenizer.plain("".join(text * times for text in TEXTS))]


def assert_same_gists(one: GistMemory, other: GistMemory) -> None:
    assert one.gists == other.gists
    assert (one.tokens, one.slots, one.window_digests) == (other.tokens, other.slots, other.window_digests)
    assert_same(one.read, other.read)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Records the requests for summaries."""
    heard: list[list[int]] = []
    decode = gist.decode

    def spy(model: Any, prompts: Sequence[Sequence[int]], *rest: Any, **options: Any) -> Any:
        heard.extend(list(prompt) for prompt in prompts)
        return decode(model, prompts, *rest, **options)

    monkeypatch.setattr(gist, "decode", spy)
    return heard


@pytest.mark.parametrize(
    ("language", "request_text"),
    [("en", "Summarize the following part of a text in a few sentences."), ("zh", "请用几句话概括以下文字片段")],
)
def test_every_window_is_summarized_by_itself(
    language: str, request_text: str, make_model: MakeModel, asked: list[list[int]]
) -> None:
    model = make_model("gist", language=language, window=WINDOW)
    tokens, opening = stream(model), len(model.stream.opening)
    told: list[int] = []
    memory = model.memorize(tokens, told.append)
    pieces = [tokens[max(start, opening) : start + WINDOW] for start in range(0, len(tokens), WINDOW)]
    assert len(memory.gists) == len(pieces) == len(asked) == 4
    tokenizer = model.stream.tokenizer
    for prompt, piece in zip(asked, pieces, strict=True):
        text = tokenizer.text(prompt)
        assert request_text in text
        assert tokenizer.text(piece) in text
        assert text.count(TEXTS[0]) == tokenizer.text(piece).count(TEXTS[0])  # no more of the stream than its window
    assert sum(told) == len(tokens)
    assert all(memory.gists)
    summaries = [token for summary in memory.gists for token in summary]
    assert memory.read.token_ids.tolist() == [*model.stream.opening, *summaries]
    assert same_bits(memory.read, model.full.memorize(memory.read.token_ids.tolist()))
    assert memory.slots == opening + len(summaries)


def test_only_what_is_new_is_summarized(make_model: MakeModel, asked: list[list[int]]) -> None:
    model = make_model("gist", window=WINDOW)
    tokens = stream(model)
    whole = model.memorize(tokens)
    first = model.memorize(tokens[: 2 * WINDOW + 5])
    asked.clear()
    assert_same_gists(model.extend(first, tokens[2 * WINDOW + 5 :]), whole)
    assert len(asked) == 2  # the window that was open, and the one after it
    asked.clear()
    cut = model.truncate(whole, WINDOW)
    assert cut.gists == whole.gists[:1]
    assert_same_gists(cut, model.memorize(tokens[:WINDOW]))
    asked.clear()
    assert_same_gists(model.extend(cut, tokens[WINDOW:]), whole)
    assert len(asked) == 3
    asked.clear()
    assert_same_gists(model.extend(cut, []), cut)
    assert asked == []
    with pytest.raises(ValueError, match="not a border of a window of 96"):
        model.truncate(whole, 100)


def test_a_window_without_text_has_no_summary(make_model: MakeModel, asked: list[list[int]]) -> None:
    """The opening is not text, and an empty text has no summary."""
    model = make_model("gist", window=WINDOW)
    memory = model.memorize(model.stream.opening)
    assert asked == []
    assert memory.read.token_ids.tolist() == list(model.stream.opening)


def test_a_window_that_the_model_cannot_read_is_told(make_model: MakeModel) -> None:
    model = make_model("gist", window=640)  # as many tokens as the context has
    with pytest.raises(ContextLengthError, match=r"a window cannot be summarized: .* make memory.window smaller"):
        model.memorize(stream(model, 80))
