"""The published artifact, as a service uses it: searchable, answerable, pinned to one version.

In:  the root of a corpus (`{store.uri}/{corpus}`), and a version number or a channel, or neither for the newest.
Out: a `Version`. What it gives is read when it is asked for, memory-mapped, and verified by digest before use.
Wrong: an unknown version or channel is a `NotFoundError`; a missing or altered blob a `CorruptBlobError` naming it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.spec import EmbeddingSpec, MemorySpec
from memorag_pipeline.spec_values import ClueKind
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob

if TYPE_CHECKING:
    from memorag_pipeline.jobs.ask import Answer, Recollection
    from memorag_pipeline.memory.interface import Memory, MemoryModel
    from memorag_pipeline.retrieval.search import Passage, Searcher


def open_version(
    uri: str,
    version: int | None = None,
    channel: str | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Version:
    """Open a version of the corpus at `uri` (such as `s3://bucket/kb/handbook`): by number, by channel, or the newest.

    `storage_options` are those of fsspec. Raises NotFoundError, StorageError, CorruptBlobError.
    """
    if version is not None and channel is not None:
        raise ValueError("give version or channel, not both")
    store = CorpusStore(uri, storage_options)
    if channel is not None:
        version = store.channels.version(channel)
    if version is None:
        version = store.versions.newest()
    if version is None:
        raise NotFoundError(
            f"{store.uri} holds no version; refresh the corpus first, or correct the URI: it is the store's URI"
            " followed by the name of the corpus"
        )
    return Version(store, version)


class Version:
    """One version of a corpus. It never changes; open another to see what a later refresh made."""

    def __init__(self, store: CorpusStore, number: int) -> None:
        self.store = store
        self.uri = store.uri
        self.number = number
        self.manifest: Manifest = store.versions.manifest(number)

    def __repr__(self) -> str:
        return f"<Version {self.number} of {self.uri}>"

    def search(self, query: str, k: int = 10) -> list[Passage]:
        """The `k` passages nearest to `query`, best first. The embedding model is loaded with the first call."""
        return self.searcher.search([query], k)[0]

    def answer(self, questions: Sequence[str], memory_only: bool = False) -> list[Answer]:
        """Answer questions: clues from the memories, evidence from the index, text from the generator.

        With `memory_only` the memory of the best shard answers by itself, and there is no evidence.
        One answer for each question, in order; a question that fails has its error in its answer.
        """
        from memorag_pipeline.jobs.ask import answer_questions
        from memorag_pipeline.jobs.settings import AnswerSettings

        return answer_questions(self, questions, AnswerSettings.of_version(self.manifest, memory_only=memory_only))

    def recall(self, questions: Sequence[str], kinds: Sequence[ClueKind] = ()) -> list[Recollection]:
        """What the memories recall for each question, of these kinds of clues or else of those that jobs use."""
        from memorag_pipeline.jobs.ask import recall_questions
        from memorag_pipeline.jobs.settings import AnswerSettings

        chosen = {"clues": tuple(kinds)} if kinds else {}
        return recall_questions(self, questions, AnswerSettings.of_version(self.manifest, **chosen))

    def documents(self) -> Iterator[dict[str, Any]]:
        """All documents with their text, as rows of `schemas.DOCUMENTS`."""
        return self._rows("documents")

    def chunks(self) -> Iterator[dict[str, Any]]:
        """All chunks, as rows of `schemas.CHUNKS`."""
        return self._rows("chunks")

    def memories(self) -> Mapping[str, Memory]:
        """The memories by shard id. Each is memory-mapped when it is asked for; the model is loaded with the first."""
        return self._memories

    @cached_property
    def searcher(self) -> Searcher:
        """Search for many queries at once; `search` is the short way for one."""
        from memorag_pipeline.retrieval.search import open_searcher

        (index,), (rows,) = self.manifest.of_role("index"), self.manifest.of_role("index_rows")
        chunks = self.manifest.of_role("chunks")

        def texts(part: int) -> pa.Table:
            return pq.read_table(self._file(chunks[part]), columns=["text"], memory_map=True)

        return open_searcher(
            self._file(index),
            pq.read_table(self._file(rows), memory_map=True),
            texts,
            EmbeddingSpec.model_validate(self.manifest.spec["embedding"]),
            next(model.digest for model in self.manifest.models if model.role == "embedding"),
        )

    @cached_property
    def _memories(self) -> _Memories:
        return _Memories(self)

    def _rows(self, role: str) -> Iterator[dict[str, Any]]:
        for part in self.manifest.of_role(role):
            for batch in pq.ParquetFile(self._file(part), memory_map=True).iter_batches(batch_size=1024):
                yield from batch.to_pylist()

    def _file(self, blob: ManifestBlob) -> Path:
        return self.store.blobs.open_file(blob.ref, f"{blob.path} of version {self.number}")


class _Memories(Mapping[str, "Memory"]):
    """The memories of a version; those that were opened stay open."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._blobs = {Path(blob.path).stem: blob for blob in version.manifest.of_role("memory")}
        self._opened: dict[str, Memory] = {}

    def __getitem__(self, shard_id: str) -> Memory:
        if shard_id not in self._opened:
            self._opened[shard_id] = self._model.open(self._version._file(self._blobs[shard_id]))
        return self._opened[shard_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)

    @cached_property
    def _model(self) -> MemoryModel[Any]:
        from memorag_pipeline.memory.kinds import load_memory_model

        manifest = self._version.manifest
        return load_memory_model(MemorySpec.model_validate(manifest.spec["memory"]), manifest.language)
