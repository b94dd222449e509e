"""A corpus of any size that is kept nowhere: each document is made from its number and its revision when it is read.

In:  a name, a number of documents, a seed.
Out: `synthetic://NAME`, a source that fsspec lists and reads in this process; `edit` gives documents another revision.

Lengths are log-normal (median 5,000 bytes, mean 8,200), words follow Zipf's law over those of Python's documentation,
and the text is Markdown with headings. The first documents of a large corpus are those of a small one. An edit replaces
200 characters somewhere in the document by 208 or more others, so it changes one or two chunks.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pydoc_data.topics import topics
from typing import Any, ClassVar

import fsspec
import numpy as np
import numpy.typing as npt
from fsspec.spec import AbstractFileSystem

PROTOCOL = "synthetic"
_IN_FOLDER = 1000  # documents
_MEDIAN, _SPREAD, _LEAST, _MOST = 5000, 1.0, 400, 2_000_000  # bytes
_EDITED = 200  # bytes that an edit replaces
_SENTENCE, _PARAGRAPH, _SECTION = (6, 28), (2, 8), (2, 7)  # words, sentences, paragraphs; from, to below
_SENTENCES = 1 << 16
_ZIPF = 2.7

_corpora: dict[str, SyntheticCorpus] = {}


@dataclass
class SyntheticCorpus:
    """The documents, by number. `revisions` has those that were edited."""

    name: str
    documents: int
    seed: int = 21
    revisions: dict[int, int] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The folder that a spec names."""
        return f"{PROTOCOL}://{self.name}/documents"

    def serve(self) -> SyntheticCorpus:
        """Let fsspec find it in this process."""
        fsspec.register_implementation(PROTOCOL, SyntheticFileSystem, clobber=True)
        _corpora[self.name] = self
        return self

    def edit(self, numbers: Iterable[int]) -> None:
        """Give each of these documents its next revision."""
        for number in numbers:
            self.revisions[number] = self.revisions.get(number, 0) + 1

    def scattered(self, share: float, turn: int) -> list[int]:
        """A share of all documents, at random."""
        return sorted(self._random(turn, -1).choice(self.documents, self._count(share), replace=False).tolist())

    def clustered(self, share: float, turn: int) -> list[int]:
        """As many neighbours, from the beginning of a folder on as far as it goes and then into the next."""
        count = self._count(share)
        folders = max(1, (self.documents - count) // _IN_FOLDER)
        first = int(self._random(turn, -2).integers(folders)) * _IN_FOLDER
        return list(range(first, first + count))

    def path(self, number: int) -> str:
        """Where fsspec finds a document."""
        return f"{self.name}/documents/{number // _IN_FOLDER:05d}/{number:07d}.md"

    def size(self, number: int) -> int:
        """Bytes of a document as it is now."""
        revision = self.revisions.get(number, 0)
        return int(self._sizes[number]) + (8 * revision if revision else 0)

    def info(self, number: int) -> dict[str, Any]:
        """A document as fsspec describes it."""
        return {
            "name": self.path(number),
            "size": self.size(number),
            "type": "file",
            "ETag": f"{number}-{self.revisions.get(number, 0)}",
        }

    def data(self, number: int) -> bytes:
        """A document as it is now."""
        size = int(self._sizes[number])
        text = _text(self._random(number, 0), size)
        if revision := self.revisions.get(number):
            random = self._random(number, revision)
            start = int(random.integers(max(1, size - _EDITED)))
            text = text[:start] + _text(random, _EDITED + 8 * revision) + text[start + _EDITED :]
        return text.encode("ascii")

    @cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        drawn = self._random(-3, 0).standard_normal(self.documents)
        return np.clip(_MEDIAN * np.exp(_SPREAD * drawn), _LEAST, _MOST).astype(np.int64)

    def _count(self, share: float) -> int:
        return min(self.documents, max(1, round(share * self.documents)))

    def _random(self, *place: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, *(number + 8 for number in place)]))


class SyntheticFileSystem(AbstractFileSystem):
    """The corpora that this process serves."""

    protocol: ClassVar[str] = PROTOCOL
    cachable: ClassVar[bool] = False

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:
        """All documents."""
        corpus = _corpora[path.partition("/")[0]]
        found = {info["name"]: info for info in map(corpus.info, range(corpus.documents))}
        return found if detail else list(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """A document."""
        return _corpora[path.partition("/")[0]].info(_number(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a corpus."""
        return path.partition("/")[0] in _corpora

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(_corpora[path.partition("/")[0]].data(_number(path)))


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".md"))


def _text(random: np.random.Generator, size: int) -> str:
    """Markdown of exactly `size` ASCII characters."""
    sentences = _sentences()
    pieces = [f"# {_heading(random)}\n\n"]
    length = len(pieces[0])
    while length < size:
        for paragraph in range(int(random.integers(*_SECTION))):
            drawn = random.integers(len(sentences), size=int(random.integers(*_PARAGRAPH))).tolist()
            heading = "" if paragraph else f"## {_heading(random)}\n\n"
            pieces.append(f"{heading}{' '.join([sentences[number] for number in drawn])}\n\n")
            length += len(pieces[-1])
    return "".join(pieces)[:size]


def _heading(random: np.random.Generator) -> str:
    return _sentences()[int(random.integers(_SENTENCES))][:40].rpartition(" ")[0]


@cache
def _sentences() -> list[str]:
    """What all texts are put together from: making each sentence for itself would take longer than reading it."""
    random = np.random.default_rng(21)
    vocabulary, summed = _vocabulary()
    counts = random.integers(*_SENTENCE, size=_SENTENCES)
    words = [vocabulary[rank] for rank in np.searchsorted(summed, random.random(int(counts.sum()))).tolist()]
    ends = np.cumsum(counts).tolist()
    return [" ".join(words[start:end]).capitalize() + "." for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@cache
def _vocabulary() -> tuple[list[str], npt.NDArray[np.float64]]:
    """Words, the most frequent first, and their probabilities summed up."""
    found = Counter(re.findall(r"[a-z]+", "\n".join(topics.values()).lower()))
    words = sorted(found, key=lambda word: (-found[word], word))
    weights = 1 / (np.arange(len(words)) + _ZIPF)
    summed = np.cumsum(weights / weights.sum())
    summed[-1] = 1.0
    return words, summed
