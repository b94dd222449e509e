"""Shared by the tests of reading documents."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import fsspec
import pytest

from memorag_pipeline.corpus.document_reader import ReadingSpec
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.models.references import resolve
from memorag_pipeline.specs.source import ChunkingSpec, RecordsSpec, ShardingSpec


@pytest.fixture
def memory_folder() -> Iterator[str]:
    """URI of an empty folder in memory."""
    name = f"corpus-{uuid4().hex}"
    yield f"memory://{name}"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(f"/{name}"):
        filesystem.rm(f"/{name}", recursive=True)


@pytest.fixture(scope="session")
def parser() -> Parser:
    """A parser in this process, for documents that do not harm it."""
    return Parser()


@pytest.fixture(scope="session")
def reading() -> ReadingSpec:
    """As a corpus with default limits is read."""
    return ReadingSpec(
        language="en",
        max_bytes=64 << 20,
        max_characters=20_000_000,
        max_pages=5000,
        max_expansion=200,
        records=RecordsSpec(),
        chunking=ChunkingSpec(),
        sharding=ShardingSpec(),
        chunk_tokens=200,
        embedding=resolve("package:all-minilm-l6-v2"),
        memory=resolve("package:smollm2-135m-instruct"),
    )
