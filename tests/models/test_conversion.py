"""A package's model is the same wherever it is converted, and so are the memories that it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import MemoryMismatchError
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models import references
from memorag_pipeline.models.file_digests import earlier_tokenizer_digests, tokenizer_digest
from memorag_pipeline.models.references import resolve
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from tests.models.tiny_gguf import write_tiny_gguf

REPOSITORY = Path(__file__).parents[2]
MODEL = "package:tiny"
# The package installed with the tests, for its version.
PACKAGE = ("pytest", "tiny_model_package", "tiny.gguf")
ELSEWHERE = f"""
import sys
from pathlib import Path
from memorag_pipeline.models import references
references._PACKAGES["tiny"] = references._Package(*{PACKAGE!r})
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.storage import CorpusStore
model = references.resolve({MODEL!r})
print(model.digest, model.tokenizer_digest, model.folder)
version = OpenedVersion(CorpusStore(sys.argv[1]), 1, trust_models=True)
print(sum(memory.tokens for memory in version.memories().values()))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import the package of a tiny model from."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / PACKAGE[1]).mkdir()
    (folder / PACKAGE[1] / "__init__.py").touch()
    write_tiny_gguf(folder / PACKAGE[1] / PACKAGE[2])
    return folder


@pytest.fixture
def pipeline(package: Path, tmp_path: Path, tiny_models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A corpus of one document that the tiny model reads, with a separate cache."""
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setitem(references._PACKAGES, "tiny", references._Package(*PACKAGE))
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one.txt").write_text("A few words for a memory. " * 20, encoding="utf-8")
    spec = {
        "corpus": "small",
        "source": {"uris": [str(tmp_path / "source")]},
        "store": {"uri": str(tmp_path / "store")},
        "memory": {"kind": "full", "model": MODEL, "window": 64, "dtype": "float32"},
        "embedding": tiny_models["embedding"],
    }
    return Pipeline(CorpusSpec.model_validate(spec))


def test_a_memory_is_opened_where_the_model_was_converted_under_other_settings(
    pipeline: Pipeline, package: Path, tmp_path: Path
) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    refresh(pipeline, "run")
    here = resolve(MODEL)
    environment = {
        "PATH": "",
        "PYTHONPATH": os.pathsep.join([str(package), str(REPOSITORY)]),
        "PYTHONHASHSEED": "7",
        "LC_ALL": "C",
        "HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_TOKEN": "not-a-token",
        "MEMORAG_CACHE": str(tmp_path / "home" / "another cache"),
    }
    command = [sys.executable, "-c", ELSEWHERE, pipeline.store.uri]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout
    there, tokens = found.strip().splitlines()
    digest, tokenizer, folder = there.split(maxsplit=2)
    assert (digest, tokenizer) == (here.digest, here.tokenizer_digest)
    assert Path(folder) != here.folder
    for path in here.folder.iterdir():
        assert path.read_bytes() == Path(folder, path.name).read_bytes(), path.name
    assert int(tokens) > 64


def test_a_memory_made_online_by_an_earlier_release_is_opened(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer's digest was over a file that said how the package's model had been loaded."""
    online = next(iter(earlier_tokenizer_digests(resolve(MODEL).folder)))
    with monkeypatch.context() as earlier:
        earlier.setattr(references, "tokenizer_digest", lambda folder: online)
        load_memory_model.cache_clear()
        refresh(pipeline, "run")
    load_memory_model.cache_clear()
    version = OpenedVersion(pipeline.store, 1, trust_models=True)
    (shard,) = version.memories()
    assert version.memories()[shard].tokens > 64
    refreshed = refresh(pipeline, "again")
    newest = OpenedVersion(pipeline.store, refreshed.version or 1, trust_models=True)
    assert newest.memories()[shard].tokens == version.memories()[shard].tokens


def test_a_memory_of_another_model_is_named_by_shard_version_and_store(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refresh(pipeline, "run")
    load_memory_model.cache_clear()
    with monkeypatch.context() as other:
        other.setattr(references, "tokenizer_digest", lambda folder: "0" * 64)
        version = OpenedVersion(CorpusStore(pipeline.store.uri), 1, trust_models=True)
        (shard,) = version.memories()
        with pytest.raises(MemoryMismatchError, match=r"tokenizer_digest [0-9a-f]{64} instead of 0{64}") as caught:
            version.memories()[shard]
    load_memory_model.cache_clear()
    assert str(caught.value).startswith(f"memories/{shard}.safetensors of version 1 of {pipeline.store.uri}: ")
    assert "blobs/" not in str(caught.value)
    assert tokenizer_digest(resolve(MODEL).folder) in str(caught.value)
