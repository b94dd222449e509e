"""Counting tokens with a model's tokenizer, without loading the model or torch.

In:  the folder of a resolved model.
Out: the tokens of texts, without the special tokens that a model adds around its input.
Wrong: a model without tokenizer.json: `NotFoundError` that names it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import ModelError, NotFoundError
from memorag_pipeline.models.piece_counts import PieceCounts
from memorag_pipeline.models.references import ResolvedModel
from memorag_pipeline.models.text_counts import TextCounts

_BATCH = 1024
TOKENIZER = "tokenizer.json"
_highest: dict[str, int] = {}  # by digest of a tokenizer.json: one of megabytes takes long to parse


@lru_cache(maxsize=8)
def token_counter(model: ResolvedModel) -> TokenCounter:
    """The tokenizer of `model`, read once per process."""
    return TokenCounter(model)


def highest_token(place: str, model: str) -> int:
    """The largest id that the tokenizer of the model at `place`, a path or URI, gives to a token.

    Raises NotFoundError without a tokenizer.json, ModelError for an invalid one.
    """
    import fsspec

    path = f"{place.rstrip('/')}/{TOKENIZER}"
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"model {model}: there is no {TOKENIZER} in {place}; make it once with transformers:"
            " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        ) from error
    try:
        digest = bytes_digest(data)
        if digest not in _highest:
            _highest[digest] = _highest_of(json.loads(data))
        return _highest[digest]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"model {model}: {path} is not a tokenizer of the library tokenizers ({type(error).__name__});"
            " fetch it again"
        ) from error


def _highest_of(tokenizer: Any) -> int:
    known = tokenizer["model"]["vocab"]
    ids = [len(known) - 1, *(known.values() if isinstance(known, dict) else ())]
    return max(int(each) for each in [*ids, *(token["id"] for token in tokenizer.get("added_tokens") or ())])


class TokenCounter:
    """The tokenizer of one model."""

    def __init__(self, model: ResolvedModel) -> None:
        path = model.folder / "tokenizer.json"
        if not path.is_file():
            raise NotFoundError(
                f"model {model.name}: no tokenizer.json in {model.folder}; save the model's fast tokenizer there"
            )
        self.tokenizer = Tokenizer.from_file(str(path))
        # Sentence encoders ship with both on; a count would then never exceed the truncation length.
        self.tokenizer.no_truncation()
        # Text that looks like a special token is text, here as when it is memorized.
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()
        self._pieces = PieceCounts.of(self.tokenizer)
        added = [re.escape(token.content) for token in self.tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(added) or r"(?!)")
        self._last: TextCounts | None = None

    @property
    def special_tokens(self) -> int:
        """Tokens that the model adds around one text."""
        return int(self.tokenizer.num_special_tokens_to_add(False))

    def count(self, text: str) -> int:
        """Tokens of one text."""
        if self._pieces is None or self._names_token(text):
            return len(self.tokenizer.encode(text, add_special_tokens=False))
        return self._pieces.count(text)

    def counts(self, texts: list[str]) -> list[int]:
        """Tokens of each of `texts`."""
        if self._pieces is not None:
            return [self.count(text) for text in texts]
        return [
            len(encoding)
            for start in range(0, len(texts), _BATCH)  # an encoding takes a few hundred bytes per token
            for encoding in self.tokenizer.encode_batch(texts[start : start + _BATCH], add_special_tokens=False)
        ]

    def within(self, text: str) -> TextCounts:
        """What counts the tokens of parts of `text`. That of the last text is kept, as several ask for it."""
        if self._last is None or self._last.text is not text:
            pieces = None if self._names_token(text) else self._pieces
            self._last = TextCounts(text, pieces, self.count, self._names_token)
        return self._last

    def _names_token(self, text: str) -> bool:
        """Whether the text contains the letters of a token that was added to the vocabulary, as [CLS] is."""
        return self._added.search(text) is not None
