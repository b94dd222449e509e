"""One published version, opened for reading: its tables, search and memories, pinned to its number.

In:  the store of a corpus and a version's number.
Out: an `OpenedVersion`. What it gives is read when it is asked for, memory-mapped, and verified by digest before use.
Wrong: a missing or altered blob is a `CorruptBlobError` naming it; a model by path or URL that the caller did not allow
       an `UntrustedReferenceError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.model_references import Section, require_known_references
from memorag_pipeline.storage.parquet import open_table

if TYPE_CHECKING:
    from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
    from memorag_pipeline.retrieval.search import Passage, Searcher


class OpenedVersion:
    """One version of a corpus. It never changes; open another to see what a later refresh made."""

    def __init__(self, store: CorpusStore, number: int, trust_models: bool = False, pinned: bool = False) -> None:
        """With `pinned` the version may have been retired since, for a run in flight that has opened it before."""
        self.store = store
        self.uri = store.uri
        self.number = number
        self._trust_models = trust_models
        self.manifest: Manifest = store.versions.pinned(number) if pinned else store.versions.manifest(number)

    def __repr__(self) -> str:
        return f"<OpenedVersion {self.number} of {self.uri}>"

    def search(self, query: str, k: int = 10) -> list[Passage]:
        """The `k` passages nearest to `query`, best first. The embedding model is loaded with the first call."""
        return self.searcher.search([query], k)[0]

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

        self.require_trusted_models("embedding")
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
            next(map(self._file, self.manifest.of_role("sparse_index")), None),
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

    def require_trusted_models(self, *sections: Section) -> None:
        """Refuse the models of these sections of the spec, if the caller did not allow what the manifest names."""
        if not self._trust_models:
            require_known_references(
                self.manifest,
                f"version {self.number} of {self.uri}",
                "open it with trust_models=True, or --trust-models at the command line",
                sections,
            )


class _Memories(Mapping[str, "Memory"]):
    """The memories of a version; those that were opened stay open."""

    def __init__(self, version: OpenedVersion) -> None:
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
        from memorag_pipeline.memory.kinds.load import load_memory_model

        self._version.require_trusted_models("memory")
        manifest = self._version.manifest
        return load_memory_model(MemorySpec.model_validate(manifest.spec["memory"]), manifest.language)
