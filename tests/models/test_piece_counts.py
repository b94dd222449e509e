"""Token counts from remembered pieces are those of the tokenizer, for every text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings

from memorag_pipeline.models import piece_counts
from memorag_pipeline.models.piece_counts import PieceCounts
from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import TokenCounter, token_counter
from tests.models.tiny_tokenizers import PATTERNS, TEXTS, WORDS, byte_level, counter, mistral, xlm_roberta


@settings(max_examples=150, deadline=None)
@given(parts=TEXTS)
@example(parts=list(WORDS))
@example(parts=[" ", *" ".join(WORDS), "▁", "  ▁a", "▁ "])
def test_counts_are_those_of_the_tokenizer(counts: TokenCounter, parts: list[str]) -> None:
    text = "".join(parts)
    expected = len(counts.tokenizer.encode(text, add_special_tokens=False))
    assert counts.count(text) == expected
    assert counts.count(text) == expected  # from what it remembers


def test_counts_of_pages_are_those_of_the_tokenizer(counts: TokenCounter) -> None:
    texts = [*topics.values(), *(" ".join(WORDS * 3).replace(" ", sign) for sign in ("\n", "  ", " \n", "\n\n"))]
    assert all(counts.within(text).by_pieces for text in texts)
    expected = [len(each) for each in counts.tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert counts.counts(texts) == expected


def test_a_text_that_names_an_added_token_is_given_to_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = byte_level(None)
    tokenizer.add_tokens(["two words"])
    added = counter(tokenizer, tmp_path)
    text = "these are two words of it"
    assert not added.within(text).by_pieces and added.within(text.upper()).by_pieces
    assert added.count(text) == len(added.tokenizer.encode(text))
    minilm = token_counter(resolve("package:all-minilm-l6-v2"))
    assert not minilm.within("a [CLS] b").by_pieces and minilm.within("a [link] b").by_pieces


@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda: mistral(["a▁b"]),
        lambda: mistral(metaspace="never"),
        lambda: mistral(ignore_merges=True),
        lambda: byte_level(None, add_prefix_space=True),
        lambda: byte_level(r"\w+|\W+"),
        lambda: byte_level(PATTERNS["qwen2"], use_regex=True),
        lambda: xlm_roberta(prepend_scheme="first"),
    ],
    ids=[
        "token of two words",
        "no space in front",
        "known words first",
        "prefix",
        "other pattern",
        "two patterns",
        "first word only",
    ],
)
def test_other_tokenizers_are_not_cut(tokenizer: object) -> None:
    assert callable(tokenizer) and PieceCounts.of(tokenizer()) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_counts, "_MOST_PIECES", 3)
    pieces = PieceCounts.of(token_counter(resolve("package:all-minilm-l6-v2")).tokenizer)
    assert pieces is not None
    assert pieces.count("one two three four five " + "x" * 300) == 6
    assert 0 < len(pieces) <= 3 and all(len(piece) < 300 for piece in pieces)
