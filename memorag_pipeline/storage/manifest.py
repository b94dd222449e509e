"""The manifest: everything that a version holds, and nothing about when or by whom it was made.

Two refreshes of the same corpus with the same spec and models give the same manifest (up to `parent`).
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.storage.blobs import LARGEST_BLOB, BlobRef

FORMAT = 2
_READ = (1, FORMAT)  # of format 1 the index is one file, its row table another
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestBlob(_Record):
    """One blob of a version: what it is for, its name within the version, and its content."""

    role: str
    path: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, le=LARGEST_BLOB)

    @property
    def ref(self) -> BlobRef:
        """The blob by content."""
        return BlobRef(digest=self.digest, size=self.size)


class ModelRecord(_Record):
    """A model that the version was made with; `digest` covers weights and configuration, or is an adapter's file's."""

    role: str
    name: str
    revision: str | None = None
    digest: str


class MemoryRecord(_Record):
    """How current a shard's memory is: of its `tokens`, `stale_tokens` are no longer in any document.

    A delta shard holds what changed since the base shards were read. The tokens of the stream's opening do not count.
    `made_on` is the device that read it, and how; both devices if another one continued it.
    """

    shard_id: str
    kind: Literal["base", "delta"]
    tokens: int
    stale_tokens: int
    made_on: str = Field(default="", exclude_if=lambda value: not value)

    @property
    def stale_share(self) -> float:
        """Between 0 and 1."""
        return self.stale_tokens / max(1, self.tokens)


class SegmentRecord(_Record):
    """A segment of the index: an index over the texts of some chunk tables, made once and never changed.

    `tables` are numbers among the version's `chunk_tables`; `rows` says which chunk of which of them each row of
    `index` is, and `pieces` where the row groups of that table and the inverted lists of `index` are. `mask` has the
    chunks that are not in the corpus any more, `masked` of `chunks`. A base segment follows from its chunk tables, a
    delta segment holds what changed since.
    """

    kind: Literal["base", "delta"]
    fingerprint: str
    tables: tuple[int, ...]
    index: BlobRef
    rows: BlobRef
    sparse: BlobRef | None = Field(default=None, exclude_if=lambda value: value is None)
    pieces: BlobRef | None = Field(default=None, exclude_if=lambda value: value is None)
    mask: BlobRef | None = Field(default=None, exclude_if=lambda value: value is None)
    vectors: int = Field(ge=0)
    chunks: int = Field(ge=0)
    masked: int = Field(default=0, ge=0, exclude_if=lambda value: not value)

    @property
    def live(self) -> int:
        """Chunks that are in the corpus."""
        return self.chunks - self.masked


class IndexRecord(_Record):
    """The index of a version: its segments, and the `template` that those of a trained kind share.

    `factory` is the kind of the base segments; the template was trained when the corpus had `trained_on` vectors.
    """

    factory: str
    template: BlobRef | None = Field(default=None, exclude_if=lambda value: value is None)
    trained_on: int = Field(default=0, ge=0, exclude_if=lambda value: not value)
    segments: tuple[SegmentRecord, ...]


class Manifest(_Record):
    """A version of a corpus. `spec` is `CorpusSpec.content()`: the parts of the spec that decided what it holds."""

    format: int = FORMAT
    corpus: str
    language: str
    parent: int | None
    spec_fingerprint: str
    spec: dict[str, Any]
    models: tuple[ModelRecord, ...]
    blobs: tuple[ManifestBlob, ...]
    memories: tuple[MemoryRecord, ...] = ()
    index: IndexRecord | None = Field(default=None, exclude_if=lambda value: value is None)
    counts: dict[str, int]

    @property
    def chunk_tables(self) -> list[ManifestBlob]:
        """The chunk tables of the corpus, then those that only segments of the index were made from."""
        return [*self.of_role("chunks"), *self.of_role("indexed_chunks")]

    def of_role(self, role: str) -> list[ManifestBlob]:
        """The blobs of one role, in order of path."""
        return [blob for blob in self.blobs if blob.role == role]

    def one(self, role: str) -> ManifestBlob:
        """The only blob of a role. Raises CorruptBlobError."""
        found = self.of_role(role)
        if len(found) != 1:
            raise self._corrupt(f"names {len(found)} blobs of role {role!r}, not one")
        return found[0]

    @property
    def memory_blobs(self) -> dict[str, ManifestBlob]:
        """The memories by shard id."""
        return {shard_of(blob.path): blob for blob in self.of_role("memory")}

    def model_of(self, role: str) -> ModelRecord:
        """The only model of a role. Raises CorruptBlobError."""
        found = [model for model in self.models if model.role == role]
        if len(found) != 1:
            raise self._corrupt(f"names {len(found)} models of role {role!r}, not one")
        return found[0]

    def section(self, name: str, kind: type[M]) -> M:
        """A section of the spec. Raises CorruptBlobError."""
        try:
            return kind.model_validate(self.spec.get(name))
        except ValidationError as error:
            raise self._corrupt(f"has a section spec.{name} that this release cannot read ({_first(error)})") from error

    def value(self, section: str, key: str, kind: type[T]) -> T:
        """A value of a section of the spec, of this type. Raises CorruptBlobError."""
        values = self.spec.get(section)
        found = values.get(key) if isinstance(values, dict) else None
        if type(found) is not kind:
            raise self._corrupt(f"has no {kind.__name__} as spec.{section}.{key}")
        return found

    def count(self, name: str) -> int:
        """One of the counts. Raises CorruptBlobError."""
        if name not in self.counts:
            raise self._corrupt(f"has no count of {name}")
        return self.counts[name]

    def _corrupt(self, problem: str) -> CorruptBlobError:
        return CorruptBlobError(
            f"manifest of {self.corpus!r}, parent {self.parent}, content sha256:{self.content_digest()}: {problem};"
            " refresh again, or restore it from a copy of the store"
        )

    def model_columns(self) -> dict[str, str]:
        """Name and digest of the memory model, with its adapter, and of the embedding model, as tables name them."""
        models = {model.role: f"{model.name}@sha256:{model.digest}" for model in self.models}
        memory = " with ".join(models[role] for role in ("memory", "adapter") if role in models)
        return {"memory_model": memory, "embedding_model": models.get("embedding", "")}

    def content_digest(self) -> str:
        """Digest of all but the parent: equal for versions that hold the same."""
        return value_digest(self.model_dump(mode="json", exclude={"parent"}))


def parse_manifest(values: Any, where: str, remedy: str) -> Manifest:
    """The manifest in JSON `values`; an error says `where` they are from, and what to do about another format.

    Raises StorageError if it has another format, CorruptBlobError if it is not a manifest.
    """
    if not isinstance(values, dict) or "format" not in values:
        raise CorruptBlobError(f"{where}: its manifest is none that a refresh writes; it has no format")
    if values["format"] not in _READ:
        known = " and ".join(map(str, _READ))
        raise StorageError(f"{where} has format {values['format']!r}, this release reads formats {known}; {remedy}")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise CorruptBlobError(f"{where}: its manifest is none that a refresh writes ({_first(error)})") from error


def _first(error: ValidationError) -> str:
    """The first problem, without the value, which may be anything."""
    problem, *more = error.errors(include_url=False, include_input=False, include_context=False)
    place = ".".join(map(str, problem["loc"])) or "all of it"
    return f"{place}: {problem['msg']}" + (f", and {len(more)} more" if more else "")


def numbered(role: str, number: int, kind: str = "parquet") -> str:
    """Name of one of several blobs of a role within a version."""
    return f"{role}/{number:05d}.{kind}"


def part_number(path: str) -> int:
    """The number in a name that `numbered` made. Raises CorruptBlobError."""
    digits = path.rpartition("/")[2].partition(".")[0]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise CorruptBlobError(f"a manifest names {path!r:.80}, where a number is expected; refresh again")
    return int(digits)


def memory_path(shard_id: str) -> str:
    """Name of a shard's memory within a version."""
    return f"memories/{shard_id}.safetensors"


def shard_of(path: str) -> str:
    """The shard whose memory has this name."""
    return path.removeprefix("memories/").removesuffix(".safetensors")
