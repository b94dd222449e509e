"""Token counts of parts of a text are those of the tokenizer, wherever the parts begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memorag_pipeline.models import text_counts
from memorag_pipeline.models.piece_counts import Cut, PieceCounts
from memorag_pipeline.models.tokens import TokenCounter
from tests.models.tiny_tokenizers import TEXTS, WORDS, byte_level, counter

PLACES = st.integers(0, 400)
AROUND = st.sampled_from(["", *WORDS, " ", "\n", "# a\n\n"])


def by_tokenizer(counts: TokenCounter, text: str) -> int:
    """What the tokenizer says."""
    return len(counts.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture(autouse=True, scope="module")
def parts_of_any_length() -> Iterator[None]:
    """Short parts are looked up by place, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_counts, "_SHORT", 1)
        yield


@settings(max_examples=200, deadline=None)
@given(
    parts=TEXTS,
    start=PLACES,
    length=PLACES,
    around=st.tuples(*[st.sampled_from(["", *WORDS, " ", "\n", "# a\n\n"])] * 2),
)
@example(parts=list(WORDS), start=3, length=300, around=("", ""))
@example(parts=["a", "\n", "b", " ", "c", "  d"], start=1, length=5, around=("", " "))
def test_parts_have_the_tokens_of_the_tokenizer(
    counts: TokenCounter, parts: list[str], start: int, length: int, around: tuple[str, str]
) -> None:
    text = "".join(parts)
    part, within = text[start : start + length], counts.within(text)
    before, after = around
    assert within.between(start, start + len(part)) == by_tokenizer(counts, part)
    assert within.between(start, start + len(part), before, after) == by_tokenizer(counts, before + part + after)
    assert within.count(part) == by_tokenizer(counts, part)


def test_a_part_is_found_from_the_one_before_it_and_any_other_text_is_counted(
    counts: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_counts, "_NEAR", 40)
    text = "\n".join(topics["strings"].splitlines()[:60] + WORDS)
    within = counts.within(text)
    places = [*range(0, len(text), 97), *range(len(text), 0, -61), 0, len(text) // 2]
    for start in places:
        part = text[start : start + 150]
        assert within.count(part) == by_tokenizer(counts, part)
    assert within.count("is in no text\u3002 of these") == by_tokenizer(counts, "is in no text\u3002 of these")


def test_a_token_is_not_named_by_what_is_before_and_after_a_part_unseen(tmp_path: Path) -> None:
    tokenizer = byte_level(None)
    tokenizer.add_tokens(["<two words>"])
    named = counter(tokenizer, tmp_path)
    text = "words> and a text about <two"
    assert named.within(text).by_pieces
    for before, after in [("<two ", ""), ("", " words>"), ("<two words>", ""), ("", "<two words>")]:
        whole = before + text + after
        assert named.within(text).between(0, len(text), before, after) == by_tokenizer(named, whole)
        assert by_tokenizer(named, whole) < PieceCounts(named.tokenizer, Cut(lambda text: text.split("w"))).count(whole)


def test_a_text_too_long_to_be_kept_is_counted_as_well(counts: TokenCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_counts, "_LONGEST", 10)
    text = topics["strings"][:2000]
    within = counts.within(text)
    assert within.count(text[5:1000]) == within.between(5, 1000) == by_tokenizer(counts, text[5:1000])
    assert "_placed" not in vars(within)


@pytest.mark.parametrize("name", ["strings", "types"])
def test_the_pieces_of_a_text_are_counted_once(counts: TokenCounter, name: str) -> None:
    """A part in its middle takes nothing but its two ends from the pieces."""
    within = counts.within(topics[name])
    within.between(0, len(topics[name]))
    assert within._pieces is not None
    seen: list[str] = []
    cut = within._pieces.pieces
    within._pieces.pieces = lambda text: seen.append(text) or cut(text)  # type: ignore[func-returns-value]
    try:
        within.between(100, 2000)
    finally:
        within._pieces.pieces = cut
    assert len(seen) == 2 and sum(map(len, seen)) < 200
