"""The manifest: everything that a version holds, and nothing about when or by whom it was made.

Two refreshes of the same corpus with the same spec and models give the same manifest (up to `parent`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from memorag_pipeline.digests import value_digest
from memorag_pipeline.storage.blobs import BlobRef

FORMAT = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestBlob(_Record):
    """One blob of a version: what it is for, its name within the version, and its content."""

    role: str
    path: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)

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
    """How far a shard's memory is what the documents say: of its `tokens`, `stale_tokens` have changed since or gone.

    A delta shard holds what changed since the base shards were read. The tokens of the stream's opening do not count.
    """

    shard_id: str
    kind: Literal["base", "delta"]
    tokens: int
    stale_tokens: int

    @property
    def stale_share(self) -> float:
        """Between 0 and 1."""
        return self.stale_tokens / max(1, self.tokens)


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
    counts: dict[str, int]

    def of_role(self, role: str) -> list[ManifestBlob]:
        """The blobs of one role, in order of path."""
        return [blob for blob in self.blobs if blob.role == role]

    def model_columns(self) -> dict[str, str]:
        """Name and digest of the memory model, with its adapter, and of the embedding model, as tables name them."""
        models = {model.role: f"{model.name}@sha256:{model.digest}" for model in self.models}
        memory = " with ".join(models[role] for role in ("memory", "adapter") if role in models)
        return {"memory_model": memory, "embedding_model": models["embedding"]}

    def content_digest(self) -> str:
        """Digest of all but the parent: equal for versions that hold the same."""
        return value_digest(self.model_dump(mode="json", exclude={"parent"}))


def memory_path(shard_id: str) -> str:
    """Name of a shard's memory within a version."""
    return f"memories/{shard_id}.safetensors"
