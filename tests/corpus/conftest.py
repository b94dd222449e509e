"""Shared by the tests of reading documents."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import fsspec
import pytest

from memorag_pipeline.corpus.parser import Parser


@pytest.fixture
def memory_folder() -> Iterator[str]:
    """URI of an empty folder in memory."""
    name = f"corpus-{uuid4().hex}"
    yield f"memory://{name}"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(f"/{name}"):
        filesystem.rm(f"/{name}", recursive=True)


@pytest.fixture(scope="session")
def parser() -> Iterator[Parser]:
    """A parser process that all tests of documents share."""
    with Parser(60) as shared:
        yield shared
