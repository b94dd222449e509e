"""Sections `embedding`, `index` and `retrieval`: how passages are found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import (
    Factory,
    Model,
    revision_has_use,
)


class EmbeddingSpec(Section):
    """The embedding model; vectors are normalized, so the inner product is the cosine."""

    rules = (Rule(("revision", "model"), revision_has_use, "leave it out"),)

    model: Model = Field(description="Hugging Face id, local folder, object-store URI, or package:all-minilm-l6-v2.")
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    pooling: Literal["cls", "mean", "last_token"] | None = Field(
        default=None,
        description="How a vector is made from those of its tokens. Default: as the model declares it"
        " (1_Pooling/config.json), else cls.",
    )
    max_tokens: int = Field(default=256, ge=16, le=32768, description="Longer texts are cut to this many tokens.")
    batch_size: int = Field(default=32, ge=1, description="Texts embedded together on a GPU; a CPU embeds each alone.")
    query_instruction: str = Field(default="", description="Text put before each question, not before passages.")


class IndexSpec(Section):
    """The Faiss index, by factory string."""

    factory: Factory = Field(
        default="auto",
        description="auto: Flat, SQ8 or IVF…,SQ8 by the bytes of all vectors; or Flat, HNSW32, IVF256,Flat, IVF256,PQ16"
        " … (inner product; no PQ under HNSW).",
    )
    segment_chunks: int = Field(
        default=1_048_576,
        ge=16,
        description="Most texts in one segment of the index. A refresh builds the segments again that changed; building"
        " one holds its vectors in memory.",
    )
    device: Literal["cpu", "gpu"] = Field(default="cpu", description="gpu needs the extra gpu instead of cpu.")


class RerankerSpec(Section):
    """A cross-encoder that reads each question together with each passage found, and reorders the passages."""

    rules = (Rule(("revision", "model"), revision_has_use, "leave it out"),)

    model: Model = Field(
        description="A model with one score, such as BAAI/bge-reranker-v2-m3: Hugging Face id, folder or URI."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    max_tokens: int = Field(
        default=512, ge=32, le=32768, description="Question and passage together are cut to this many tokens."
    )
    batch_size: int = Field(default=32, ge=1, description="Pairs that are read together.")


class RetrievalSpec(Section):
    """How passages are found, and how evidence is chosen from them. Only `sparse` is part of a version."""

    sparse: Literal["bm25", "model"] | None = Field(
        default=None,
        description="Each version also gets a sparse index; its hits are fused with those of the vectors. bm25: by"
        " words. model: by tokens, weighted by an embedding model that has a sparse layer, such as BGE-M3.",
    )
    fusion: Literal["rrf", "union"] = Field(
        default="rrf",
        description="rrf: the hits of question and clues are fused by rank. union: the first hits of each are taken,"
        " in document order, up to evidence_tokens.",
    )
    order: Literal["best_last", "document"] = Field(
        default="best_last",
        description="The order in which the generator reads evidence. document: the order in the documents.",
    )
    reranker: RerankerSpec | None = Field(
        default=None, description="Default: passages stay in the order in which they were found."
    )
