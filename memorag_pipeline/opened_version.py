"""One published version, opened for reading: its tables, search and memories, pinned to its number.

In:  the store of a corpus and a version's number.
Out: an `OpenedVersion`. Its contents are read on demand, memory-mapped, and verified by digest before use.
Wrong: a missing or altered blob is a `CorruptBlobError` naming it, or a `RetiredVersionError` if the version was
       retired since; a model by path or URL that the caller did not allow an `UntrustedReferenceError`.

What is open stays usable in a forked process, if the cache folder is deleted, and if the version is retired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorag_pipeline.errors import ArgumentError, CorruptBlobError, StorageError, named, used_by
from memorag_pipeline.machine.forks import require_device
from memorag_pipeline.machine.packages import READER, require_packages
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.model_references import ModelSection, known_language, require_known_references
from memorag_pipeline.storage.parquet import StoredTable
from memorag_pipeline.storage.version_tables import VersionTables

if TYPE_CHECKING:
    from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
    from memorag_pipeline.retrieval.search import Passage, Searcher


class OpenedVersion:
    """One version of a corpus. It never changes; open another to see what a later refresh made."""

    def __init__(
        self,
        store: CorpusStore,
        number: int,
        trust_models: bool = False,
        pinned: bool = False,
        prefetch: bool = True,
    ) -> None:
        """With `pinned` the version may have been retired since, for a run in progress that has opened it before.

        Without `prefetch` only the parts of a large remote index are fetched that searches look into.
        """
        self.store = store
        self.uri = store.uri
        self.number = number
        self._trust_models, self._prefetch = trust_models, prefetch
        self.manifest: Manifest = store.versions.pinned(number) if pinned else store.versions.manifest(number)
        self.tables = VersionTables(store, number, self.manifest)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.uri}>"

    def search(self, query: str, k: int = 10) -> list[Passage]:
        """The `k` passages nearest to `query`, best first. The embedding model is loaded with the first call."""
        if not isinstance(query, str) or isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ArgumentError(f"search takes a text and k, a number of passages from 1; found {query!r:.80}, k={k!r}")
        return self.searcher.search([query], k)[0]

    def documents(self) -> Iterator[dict[str, Any]]:
        """All documents with their text, as rows of `schemas.DOCUMENTS`."""
        return self._rows("documents")

    def chunks(self) -> Iterator[dict[str, Any]]:
        """All chunks, as rows of `schemas.CHUNKS`."""
        return self._rows("chunks")

    def memories(self) -> Mapping[str, Memory]:
        """The memories by shard id. Each is memory-mapped on access; the model is loaded with the first."""
        return self._memories

    def open_memory(self, model: MemoryModel[Any], shard_id: str) -> Memory:
        """The memory of a shard, memory-mapped; KeyError if there is no such shard."""
        require_device()
        with self._files([self._memory_blobs[shard_id]]) as (path,):
            opened: Memory = model.open(path)
            return opened

    def fetch_memory(self, shard_id: str) -> None:
        """Have the file of a shard's memory here and verified, so that `open_memory` has little left to do."""
        with self._files([self._memory_blobs[shard_id]]):
            pass

    @cached_property
    def searcher(self) -> Searcher:
        """Search for many queries at once; `search` is the shortcut for one."""
        require_packages(*READER)
        from memorag_pipeline.retrieval.search import open_searcher
        from memorag_pipeline.retrieval.shard_places import ShardPlaces
        from memorag_pipeline.retrieval.version_segments import segments_of

        self.require_trusted_models("embedding")
        ranges = None if self._prefetch or self.store.blobs.are_files else self._range
        chunks, name = self.manifest.chunk_tables, f"version {self.number} of {self.uri}"
        return open_searcher(
            segments_of(self.manifest, self._files, self._table, ranges),
            lambda number, columns: self._table(self.tables.of_number(chunks, number, "chunk tables")).read(columns),
            ShardPlaces(lambda: self._table(self._sections).read(["document_id", "start", "shard_id"]), name),
            self.manifest.section("embedding", EmbeddingSpec),
            self.manifest.model_of("embedding").digest,
            name,
        )

    @property
    def _sections(self) -> ManifestBlob:
        """The table of sections; in versions of releases without it the row table says as much."""
        return next(iter(self.manifest.of_role("sections")), None) or self.manifest.one("index_rows")

    @cached_property
    def _memory_blobs(self) -> dict[str, ManifestBlob]:
        return self.manifest.memory_blobs

    @cached_property
    def _memories(self) -> _Memories:
        return _Memories(self)

    def _rows(self, role: str) -> Iterator[dict[str, Any]]:
        for part in self.manifest.of_role(role):
            for batch in self._table(part).batches(1024):
                yield from batch.to_pylist()

    def _table(self, blob: ManifestBlob) -> StoredTable:
        with self._unless_retired(blob):
            return self.tables.open(blob)

    def _range(self, blob: ManifestBlob, start: int, size: int) -> bytes:
        with self._unless_retired(blob):
            return self.store.blobs.get_range(blob.ref, start, size, self.tables.name(blob))

    @contextmanager
    def _files(self, blobs: Iterable[ManifestBlob]) -> Iterator[list[Path]]:
        """Local files of blobs. Errors about them name the blobs."""
        blobs = list(blobs)
        with self._unless_retired(*blobs), ExitStack() as names:
            paths = []
            for blob in blobs:
                paths.append(self.store.blobs.open_file(blob.ref, self.tables.name(blob)))
                names.enter_context(named(paths[-1], f"{self.tables.name(blob)} of {self.uri}"))
            yield paths

    @contextmanager
    def _unless_retired(self, *blobs: ManifestBlob) -> Iterator[None]:
        """Raise RetiredVersionError if the version was retired since: a later sweep deletes its blobs."""
        try:
            yield
        except CorruptBlobError:
            self.store.versions.manifest(self.number)  # raises RetiredVersionError
            raise
        except FileNotFoundError as error:
            self.store.versions.manifest(self.number)
            lost = ", ".join(map(self.tables.name, blobs))
            raise StorageError(f"{lost} of {self.uri}: deleted while it was opened ({error}); try again") from error

    def require_trusted_models(self, *sections: ModelSection) -> None:
        """Refuse the models of these sections of the spec if the caller did not allow the manifest's references."""
        if not self._trust_models:
            require_known_references(
                self.manifest,
                f"version {self.number} of {self.uri}",
                "open it with trust_models=True, or --trust-models at the command line",
                sections,
            )


class _Memories(Mapping[str, "Memory"]):
    """The memories of a version; opened ones stay open."""

    def __init__(self, version: OpenedVersion) -> None:
        self._version = version
        self._opened: dict[str, Memory] = {}

    def __getitem__(self, shard_id: str) -> Memory:
        if shard_id not in self._opened:
            self._opened[shard_id] = self._open(shard_id)
        return self._opened[shard_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._version._memory_blobs)

    def __len__(self) -> int:
        return len(self._version._memory_blobs)

    def _open(self, shard_id: str) -> Memory:
        if shard_id not in self._version._memory_blobs:
            raise KeyError(shard_id)  # before the model is loaded
        return self._version.open_memory(self._model, shard_id)

    @cached_property
    def _model(self) -> MemoryModel[Any]:
        from memorag_pipeline.memory.kinds.load import load_memory_model

        self._version.require_trusted_models("memory")
        manifest = self._version.manifest
        with used_by(f"version {self._version.number} of {self._version.uri}"):
            return load_memory_model(manifest.section("memory", MemorySpec), known_language(manifest))
