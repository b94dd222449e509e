"""The cases' documents and records, read once; a small published corpus; a server for the replies of endpoints."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.field.cases import FIELD, Case, all_cases
from tests.field.reading import Corpus, Read, read_corpus
from tests.fixtures.corpus import spec_of
from tests.generators.conftest import server

__all__ = ["server"]

# One part for few documents: the parts are read one after the other by one process.
SOURCE = {
    "include": ["documents/**", "records/**"],
    "records": {"include": ["records/**"], "id": "id"},
    "documents_per_part": 64,
}


@pytest.fixture(scope="session")
def field_spec(tiny_models: dict[str, Any]) -> Callable[..., CorpusSpec]:
    """A spec with tiny models over some source; keyword arguments replace whole sections."""
    return partial(spec_of, **tiny_models)


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the archives of cases hold."""
    folder = tmp_path_factory.mktemp("unpacked")
    for name in sorted({case.archive for case in all_cases() if case.archive}):
        with tarfile.open(FIELD / name) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def corpus(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """All documents and records, extracted; the models serve only as tokenizers."""
    store = {"uri": str(tmp_path_factory.mktemp("field") / "store")}
    uris = [str(FIELD), str(unpacked)]
    return read_corpus(Pipeline(spec_of(FIELD, source={"uris": uris, **SOURCE}, store=store)))


@pytest.fixture
def read(corpus: Corpus, unpacked: Path, case: Case) -> Read:
    """What became of the case's file."""
    path = (unpacked if case.archive else FIELD) / case.name
    assert path.is_file(), f"{path} is not there"
    return corpus.of(f"file://{path}")


@pytest.fixture(scope="session")
def quay(field_spec: Callable[..., CorpusSpec], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """A published corpus of one document; keyword arguments add sections to its spec."""
    folder = tmp_path_factory.mktemp("quay")
    (folder / "source").mkdir()
    (folder / "source" / "quay.rst").write_text("A quay is a wall where ships tie up and are unloaded.\n")
    make = partial(field_spec, folder / "source", store={"uri": str(folder / "store")})
    runner.refresh(Pipeline(make()), "tests")
    return lambda **sections: Pipeline(make(**sections))
