"""What stands in for models and counts for the store where neither is the subject: made in microseconds, by real
interfaces.

In:  `registered()` around the work; a spec with memory kind `tokens` and a store at `counted:///FOLDER`.
Out: memories of tokens alone, vectors that are a function of a text's digest, and the bytes and calls of the store.

The memory kind and the store are entries of the tables that docs/adding.md names. Embedding models have no such table,
so `load_embedder` is replaced.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from memorag_pipeline.memory.engine.generation import Advance, Decoding, Generation, OnFinished
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.format import FORMAT_VERSION, MemoryHeader, open_memory, write_memory
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
from memorag_pipeline.memory.kinds.load import LOADERS
from memorag_pipeline.models.references import resolve
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.memory_kinds import KINDS, KindTraits
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.backends.local import LocalObjects
from memorag_pipeline.storage.objects import BACKENDS

KIND, PROTOCOL = "tokens", "counted"
_TOPICS, _NOISES, _ADDED = 1024, 4096, 8  # rows of the tables that vectors are made of, and noises in one
_LISTED_AT_ONCE = 1000  # objects in one answer of S3 to a listing

Vectors = npt.NDArray[np.float32]


@contextmanager
def registered(dimensions: int) -> Iterator[None]:
    """The entries, for the time of the block; vectors have so many dimensions."""
    with (
        patch.dict(KINDS, {KIND: KindTraits("the tokens alone.", positions="slot")}),
        patch.dict(LOADERS, {KIND: f"{__name__}:TokenMemoryModel.load"}),
        patch.dict(BACKENDS, {PROTOCOL: f"{__name__}:CountedObjects"}),
        patch("memorag_pipeline.retrieval.embedder.load_embedder", lambda spec: HashEmbedder(spec, dimensions)),
    ):
        yield


@dataclass
class StoreTraffic:
    """Bytes to and from the stores of this process, and calls; a listing counts one for each thousand objects."""

    written: int = 0
    read: int = 0
    calls: int = 0

    def __sub__(self, other: StoreTraffic) -> StoreTraffic:
        return StoreTraffic(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


_traffic, _lock = StoreTraffic(), threading.Lock()


def traffic() -> StoreTraffic:
    """So far."""
    with _lock:
        return StoreTraffic(*astuple(_traffic))


def _count(written: int = 0, read: int = 0, calls: int = 0) -> None:
    with _lock:
        _traffic.written += written
        _traffic.read += read
        _traffic.calls += calls


class CountedObjects:
    """A local folder that behaves like a remote store: its objects are no local files. What goes through is counted."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        self.uri = uri.rstrip("/")
        self._folder = LocalObjects(self.uri.removeprefix(f"{PROTOCOL}://"), options)
        self.root = self._folder.root

    def create(self, path: str, data: bytes) -> bool:
        created = self._folder.create(path, data)
        _count(written=len(data) * created, calls=1)
        return created

    def create_from_file(self, path: str, source: Path) -> bool:
        created = self._folder.create_from_file(path, source)
        _count(written=source.stat().st_size * created, calls=1)
        return created

    def put(self, path: str, data: bytes) -> None:
        self._folder.put(path, data)
        _count(written=len(data), calls=1)

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        _count(calls=1)
        for piece in self._folder.pieces(path, most):
            _count(read=len(piece))
            yield piece

    def download(self, path: str, target: Path, most: int) -> None:
        self._folder.download(path, target, most)
        _count(read=target.stat().st_size, calls=1)

    def listing(self, folder: str) -> Iterable[StoredObject]:
        for number, stored in enumerate(self._folder.listing(folder)):
            _count(calls=number % _LISTED_AT_ONCE == 0)
            yield stored

    def file(self, path: str) -> Path | None:
        return None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The rest of a backend; bytes that it returns are read from the store."""
        call = getattr(self._folder, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            _count(read=len(result) if isinstance(result, bytes) else 0, calls=1)
            return result

        return counted


class HashEmbedder:
    """Gives each text a vector by its digest, with the interface of `retrieval.embedder.Embedder`.

    Vectors lie around a thousand topics, two of one topic at a cosine of 0.5 on average.
    """

    def __init__(self, spec: EmbeddingSpec, dimensions: int) -> None:
        self.model_digest = resolve(spec.model, spec.revision).digest
        self.dimensions = dimensions

    def embed_passages(self, texts: Sequence[str], advance: Callable[[float], None] | None = None) -> Vectors:
        """Vectors of texts."""
        if advance:
            advance(len(texts))
        return vectors_of_texts(texts, self.dimensions)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same, so that a passage's text finds it."""
        return vectors_of_texts(texts, self.dimensions)


def vectors_of_texts(texts: Sequence[str], dimensions: int) -> Vectors:
    """A normalized vector for each text, [texts, dimensions]."""
    if not texts:
        return np.empty((0, dimensions), np.float32)
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    numbers = np.frombuffer(digests, "<u2").reshape(len(texts), -1)
    topics, noises = _tables(dimensions)
    vectors = topics[numbers[:, 0] % _TOPICS]
    for place in range(1, 1 + _ADDED):
        vectors += noises[numbers[:, place] % _NOISES]
    normalized: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


@cache
def _tables(dimensions: int) -> tuple[Vectors, Vectors]:
    random = np.random.default_rng(21)
    topics = random.standard_normal((_TOPICS, dimensions), np.float32)
    return topics, random.standard_normal((_NOISES, dimensions), np.float32) / np.sqrt(_ADDED, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class TokenMemory(Memory):
    """No slots."""

    @property
    def slots(self) -> int:
        return 0


class TokenMemoryModel(MemoryModel[TokenMemory]):
    """Keeps the tokens of a stream, so that windows and continuations are those of any memory, and reads nothing."""

    kind: ClassVar[str] = KIND

    def __init__(self, full: FullMemoryModel) -> None:
        self._full, self.stream, self.origin, self.window = full, full.stream, full.origin, full.window
        layer = full.network.layers[0]
        self._shape = (len(full.network.layers), layer.kv_heads, layer.size)

    @classmethod
    def load(cls, spec: MemorySpec, language_model: LanguageModel, language: Language) -> Self:
        """What `memory/kinds/load.py` calls."""
        return cls(FullMemoryModel.load(spec, language_model, language))

    def empty(self) -> TokenMemory:
        return TokenMemory(torch.empty(0, dtype=torch.int32), self.window)

    def extend_many(
        self, memories: Sequence[TokenMemory], token_ids: Sequence[Sequence[int]], advance: Advance | None = None
    ) -> list[TokenMemory]:
        if advance is not None:
            advance(sum(map(len, token_ids)))
        return [
            TokenMemory(torch.cat([memory.token_ids, torch.tensor(tokens, dtype=torch.int32)]), self.window)
            for memory, tokens in zip(memories, token_ids, strict=True)
        ]

    def truncate(self, memory: TokenMemory, tokens: int) -> TokenMemory:
        memory.require_border(tokens)
        return TokenMemory(memory.token_ids[:tokens], self.window)

    def save(self, memory: TokenMemory, path: Path) -> None:
        layers, *row = self._shape
        nothing = [torch.empty(0, *row)] * layers
        digests = memory.window_digests
        codec = self._full.codec
        header = MemoryHeader(FORMAT_VERSION, self.origin, memory.tokens, 0, self._shape, (), digests, codec)
        write_memory(path, header, memory.token_ids, nothing, nothing)

    def open(self, path: Path) -> TokenMemory:
        network = self._full.network
        stored = open_memory(path, self.origin, network.device, network.dtype, self._shape)
        return TokenMemory(stored.token_ids, self.window)

    def generate(
        self,
        memory: TokenMemory,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        raise NotImplementedError("a memory of tokens alone answers nothing")
