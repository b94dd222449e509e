"""A fresh root on each of the three backends, and versions made of small blobs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob, ModelRecord, ObjectStore

Root = tuple[str, dict[str, Any]]


PROTOCOLS = ("file", "memory", "s3")


@pytest.fixture(params=PROTOCOLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """URI and fsspec options of an empty root."""
    return root_of(request.param, request, tmp_path)


def root_of(protocol: str, request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """The same for one protocol."""
    if protocol == "s3":
        uri, options = request.getfixturevalue("s3_store")
        return f"{uri}/kb/topics", options
    if protocol == "file":
        return str(tmp_path / "root" / "topics"), {}
    return f"{protocol}://{uuid.uuid4().hex}/topics", {}


def races(root: Root) -> int:
    """SeaweedFS takes one to two seconds to settle a race."""
    return 2 if root[0].startswith("s3://") else 20


@pytest.fixture
def objects(root: Root) -> ObjectStore:
    """An object store on each backend."""
    return ObjectStore(*root)


@pytest.fixture
def store(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusStore:
    """A corpus store on each backend, with a separate local cache."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    return CorpusStore(*root)


@pytest.fixture
def make_manifest(store: CorpusStore) -> Callable[..., Manifest]:
    """Store one blob for each keyword argument (role=bytes) and name them in a manifest."""
    return lambda **blobs: manifest_of(store, **blobs)


def manifest_of(store: CorpusStore, **blobs: bytes) -> Manifest:
    """As the fixture `make_manifest`, in `store`."""
    named = []
    for role, data in blobs.items():
        ref = store.blobs.put_bytes(data)
        named.append(ManifestBlob(role=role, path=f"{role}/00000.bin", digest=ref.digest, size=ref.size))
    return Manifest(
        corpus="topics",
        language="en",
        parent=None,
        spec_fingerprint="0" * 64,
        spec={"language": "en"},
        models=(ModelRecord(role="memory", name="package:smollm2-135m-instruct", digest="1" * 64),),
        blobs=tuple(named),
        counts={"documents": len(named)},
    )
