"""The published artifact, as a service uses it: searchable, answerable, pinned to one version.

In:  the root of a corpus (`{store.uri}/{corpus}`), and a version number or a channel, or neither for the newest.
Out: a `Version`. What it gives is read when it is asked for, memory-mapped, and verified by digest before use.
Wrong: an unknown version or channel is a `NotFoundError`; a missing or altered blob a `CorruptBlobError` naming it; a
       model by path or URL that the caller did not allow an `UntrustedReferenceError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.spec import EmbeddingSpec, MemorySpec
from memorag_pipeline.spec_values import ClueKind
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.model_references import require_known_references
from memorag_pipeline.storage.tables import open_table

if TYPE_CHECKING:
    from memorag_pipeline.jobs.ask import Answer, Recollection
    from memorag_pipeline.memory.interface import Memory, MemoryModel
    from memorag_pipeline.retrieval.search import Passage, Searcher


def open_version(
    uri: str,
    version: int | None = None,
    channel: str | None = None,
    storage_options: dict[str, Any] | None = None,
    trust_models: bool = False,
) -> Version:
    """Open a version of the corpus at `uri` (such as `s3://bucket/kb/handbook`): by number, by channel, or the newest.

    `storage_options` are those of fsspec. With `trust_models` the version may name its models by local paths and URLs:
    only for a store whose every writer is trusted. Raises NotFoundError, StorageError, CorruptBlobError.
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
    return Version(store, version, trust_models)


class Version:
    """One version of a corpus. It never changes; open another to see what a later refresh made."""

    def __init__(self, store: CorpusStore, number: int, trust_models: bool = False) -> None:
        self.store = store
        self.uri = store.uri
        self.number = number
        self._trust_models = trust_models
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

        self._require_trusted_models()
        return answer_questions(self, questions, AnswerSettings.of_version(self.manifest, memory_only=memory_only))

    def recall(self, questions: Sequence[str], kinds: Sequence[ClueKind] = ()) -> list[Recollection]:
        """What the memories recall for each question, of these kinds of clues or else of those that jobs use."""
        from memorag_pipeline.jobs.ask import recall_questions
        from memorag_pipeline.jobs.settings import AnswerSettings

        self._require_trusted_models()
        chosen: dict[str, Any] = {"clues": tuple(kinds)} if kinds else {}
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

        self._require_trusted_models()
        (index,), (rows,) = self.manifest.of_role("index"), self.manifest.of_role("index_rows")
        chunks = self.manifest.of_role("chunks")

        def texts(part: int) -> pa.Table:
            return self._table(chunks[part]).read(["text"])

        return open_searcher(
            self._file(index),
            self._table(rows).read(),
            texts,
            EmbeddingSpec.model_validate(self.manifest.spec["embedding"]),
            next(model.digest for model in self.manifest.models if model.role == "embedding"),
        )

    @cached_property
    def _memories(self) -> _Memories:
        return _Memories(self)

    def _rows(self, role: str) -> Iterator[dict[str, Any]]:
        for part in self.manifest.of_role(role):
            for batch in self._table(part).iter_batches(batch_size=1024):
                yield from batch.to_pylist()

    def _table(self, blob: ManifestBlob) -> Any:
        return open_table(self._file(blob), self._name(blob))

    def _file(self, blob: ManifestBlob) -> Path:
        return self.store.blobs.open_file(blob.ref, self._name(blob))

    def _name(self, blob: ManifestBlob) -> str:
        return f"{blob.path} of version {self.number}"

    def _require_trusted_models(self) -> None:
        if not self._trust_models:
            require_known_references(
                self.manifest,
                f"version {self.number} of {self.uri}",
                "open it with trust_models=True, or --trust-models at the command line",
            )


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

        self._version._require_trusted_models()
        manifest = self._version.manifest
        return load_memory_model(MemorySpec.model_validate(manifest.spec["memory"]), manifest.language)
