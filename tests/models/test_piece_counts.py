"""Token counts from remembered pieces are those of the tokenizer, for every text."""

from __future__ import annotations

import io
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from memorag_pipeline.models import piece_counts
from memorag_pipeline.models.piece_counts import PieceCounts
from memorag_pipeline.models.references import ResolvedModel, resolve
from memorag_pipeline.models.tokens import TokenCounter, token_counter

WORDS = [
    "where ships tie up, and aren't unloaded", "_quay_ [x](y) **wall**", "naïve Ångström Straße", "Σίσυφος ΟΔΟΣ",
    "码头是船只停靠的地方。", "波止場は船が泊まる", "부두는 배가", "12,345.67 1e-9 x²", "😀🏻👍🏽 e\u0301 \u0301",
    "\t\r\n", "  \n\n   ", "don't WE'LL 's", "\u00a0\u3000\u2028\u200b\u200d\u200e", "\x00\x1c\x85\ufffd", "`` ``` ---",
    "a\nb",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=6) | st.sampled_from([" ", "\n", "  ", ".\n", "\n\n"]))
PATTERNS = {"qwen2": piece_counts._QWEN2, "llama3": piece_counts._LLAMA3}


def byte_level(pattern: str | None, **settings: bool) -> Tokenizer:
    """Byte-level BPE, trained on a few pages, that splits texts by a pattern; by GPT-2's if there is none."""
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": pattern is None} | settings)]
    if pattern is not None:
        tokenizer.normalizer = normalizers.NFC()
        steps.insert(0, pre_tokenizers.Split(Regex(pattern), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.train_from_iterator(
        [*list(topics.values())[:10], *WORDS],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    return tokenizer


def xlm_roberta(**settings: str) -> Tokenizer:
    """A Unigram model of words with the normalizer of SentencePiece, as XLM-RoBERTa and BGE-M3 have."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in topics.values() for line in text.splitlines() if line][:1000]),
        model_writer=written, vocab_size=300, normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], 0, False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**{"prepend_scheme": "always"} | settings)]
    )
    return tokenizer


def mistral() -> Tokenizer:
    """SentencePiece's BPE over a whole text, as Llama 2 and Mistral have it."""
    tokenizer = Tokenizer(models.BPE({"▁": 0, "a": 1, "▁a": 2}, [("▁", "a")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def counter(tokenizer: Tokenizer, folder: Path) -> TokenCounter:
    """The counter of a model with this tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenCounter(ResolvedModel(name="tiny", revision=None, folder=folder, digest="", tokenizer_digest=""))


@pytest.fixture(
    scope="module",
    params=["package:all-minilm-l6-v2", "package:smollm2-135m-instruct", "gpt2", "qwen2", "llama3", "xlm-roberta"],
)
def counts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    """Each kind of tokenizer that is counted by pieces."""
    if request.param.startswith("package:"):
        return token_counter(resolve(request.param))
    tokenizer = xlm_roberta() if request.param == "xlm-roberta" else byte_level(PATTERNS.get(request.param))
    return counter(tokenizer, tmp_path_factory.mktemp("model"))


@settings(max_examples=150, deadline=None)
@given(parts=TEXTS)
@example(parts=list(WORDS))
def test_counts_are_those_of_the_tokenizer(counts: TokenCounter, parts: list[str]) -> None:
    text = "".join(parts)
    expected = len(counts.tokenizer.encode(text, add_special_tokens=False))
    assert counts.count(text) == expected
    assert counts.count(text) == expected  # from what it remembers


def test_counts_of_pages_are_those_of_the_tokenizer(counts: TokenCounter) -> None:
    texts = [*topics.values(), *(" ".join(WORDS * 3).replace(" ", sign) for sign in ("\n", "  ", " \n", "\n\n"))]
    assert all(counts.part_counter(text) for text in texts)
    expected = [len(each) for each in counts.tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert counts.counts(texts) == expected


def test_a_text_that_names_an_added_token_is_given_to_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = byte_level(None)
    tokenizer.add_tokens(["two words"])
    added = counter(tokenizer, tmp_path)
    text = "these are two words of it"
    assert added.part_counter(text) is None and added.part_counter(text.upper()) is not None
    assert added.count(text) == len(added.tokenizer.encode(text))
    minilm = token_counter(resolve("package:all-minilm-l6-v2"))
    assert minilm.part_counter("a [CLS] b") is None and minilm.part_counter("a [link] b") is not None


@pytest.mark.parametrize(
    "tokenizer",
    [
        mistral,
        lambda: byte_level(None, add_prefix_space=True),
        lambda: byte_level(r"\w+|\W+"),
        lambda: byte_level(PATTERNS["qwen2"], use_regex=True),
        lambda: xlm_roberta(prepend_scheme="first"),
    ],
    ids=["mistral", "prefix", "other pattern", "two patterns", "first word only"],
)
def test_other_tokenizers_are_not_cut(tokenizer: object) -> None:
    assert callable(tokenizer) and PieceCounts.of(tokenizer()) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_counts, "_MOST_PIECES", 3)
    pieces = PieceCounts.of(token_counter(resolve("package:all-minilm-l6-v2")).tokenizer)
    assert pieces is not None
    assert pieces.count("one two three four five " + "x" * 300) == 6
    assert 0 < len(pieces) <= 3 and all(len(piece) < 300 for piece in pieces)
