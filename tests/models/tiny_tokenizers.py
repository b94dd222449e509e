"""Small tokenizers of the kinds that are counted by pieces, and texts that are hard to cut."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import sentencepiece
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from memorag_pipeline.models import piece_counts
from memorag_pipeline.models.references import ResolvedModel
from memorag_pipeline.models.tokens import TokenCounter

WORDS = [
    "where ships tie up, and aren't unloaded", "_quay_ [x](y) **wall**", "naïve Ångström Straße", "Σίσυφος ΟΔΟΣ",
    "码头是船只停靠的地方。", "波止場は船が泊まる", "부두는 배가", "12,345.67 1e-9 x²", "😀🏻👍🏽 e\u0301 \u0301",
    "\t\r\n", "  \n\n   ", "don't WE'LL 's", "\u00a0\u3000\u2028\u200b\u200d\u200e", "\x00\x1c\x85\ufffd", "`` ``` ---",
    "a\nb",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=6) | st.sampled_from([" ", "\n", "  ", ".\n", "\n\n"]))
PATTERNS = {"gpt2": None, "qwen2": piece_counts._QWEN2, "llama3": piece_counts._LLAMA3}


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


def mistral(vocabulary: Iterable[str] = (), metaspace: str = "", **settings: bool) -> Tokenizer:
    """SentencePiece's BPE over a whole text, as Llama 2 and Mistral have it: most characters are tokens, all bytes are.

    Later releases of their files have a pre-tokenizer in place of the normalizer, and `metaspace` is its scheme.
    """
    words = [line.split(" ") for text in list(topics.values())[:10] for line in text.splitlines()]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        [*WORDS, *(" ".join(line) for line in words), *["        "] * 99],
        trainers.BpeTrainer(vocab_size=600, show_progress=False, special_tokens=["<unk>"]),
    )
    model = json.loads(trained.to_str())["model"]
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *list(model["vocab"])[1:],
        "▁▁",
        "▁▁▁▁",
        *vocabulary,
    ]
    merges = [("▁", "▁"), ("▁▁", "▁▁"), *map(tuple, model["merges"])]
    known = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(known, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, **settings))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    **{name: partial(byte_level, pattern) for name, pattern in PATTERNS.items()},
    "xlm-roberta": xlm_roberta,
    "mistral": mistral,
    "mistral, first word": lambda: mistral(metaspace="first"),
    "mistral, any text": lambda: mistral(metaspace="always"),
}


def counter(tokenizer: Tokenizer, folder: Path) -> TokenCounter:
    """The counter of a model with this tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenCounter(ResolvedModel(name="tiny", revision=None, folder=folder, digest="", tokenizer_digest=""))
