"""A reader of a version, on a real S3 server: what its first searches cost with an empty cache.

In:  a corpus whose newest version is to be read.
Out: seconds and bytes until the version is open, of the first search, and of others.

Each search is for the text of a passage. Seconds are those of a reader that asks the server itself, bytes those of
another one whose requests go through a proxy that counts them; both begin with an empty cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import s3fs

from benchmarks.figures import Report
from benchmarks.meter import forget_blobs
from benchmarks.timing import seconds_of
from benchmarks.traffic import counted
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.storage import Manifest
from memorag_pipeline.version import Version, open_version
from tests.fixtures.s3 import run_s3_server

# Roles of blobs that no search reads.
_NOT_SEARCHED = {
    *("inventory", "documents", "quarantine", "shards", "units", "memory", "embeddings"),
}
_QUERIES = 22
_AT_ONCE = 16
_MANY = "a search of many"


def measure_reader(pipeline: Pipeline, folder: Path, report: Report, size: Mapping[str, int]) -> None:
    """Copy what a search needs of the newest version to a server, and read it there; `size` is said in each line."""
    with (
        TemporaryDirectory(dir=folder) as place,
        run_s3_server(Path(place)) as server,
        counted(server.endpoint) as traffic,
    ):
        bucket = server.new_bucket()
        manifest = _upload(pipeline, s3fs.S3FileSystem(**server.options()), bucket)
        texts = _texts(pipeline, manifest)
        uri = f"s3://{bucket}/kb"
        timed = [(name, seconds_of(call)) for name, call in _steps(Reader(uri, server.options()), texts)]
        fetched = []
        for _, call in _steps(Reader(uri, {**server.options(), "endpoint_url": traffic.endpoint}), texts):
            began = datetime.now(UTC)
            call()
            fetched.append(traffic.between(began, datetime.now(UTC))[0])
        for (name, seconds), read in zip(timed, fetched, strict=True):
            each = len(texts) - 2 if name == _MANY else 1
            report.values("reader", name, {**size, "seconds": seconds / each, "fetched_mb": read / each / 1e6})


def _steps(reader: Reader, texts: Sequence[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "open", reader.open
    yield "first search", lambda: reader.expect(texts[0])
    yield "second search", lambda: reader.expect(texts[1])
    yield _MANY, lambda: [reader.expect(text) for text in texts[2:]]


class Reader:
    """A reader with an empty cache."""

    def __init__(self, uri: str, options: dict[str, object]) -> None:
        self._uri, self._options = uri, options
        self._version: Version | None = None
        forget_blobs()

    def open(self) -> None:
        """Open the newest version."""
        self._version = open_version(self._uri, storage_options=self._options, trust_models=True)

    def expect(self, text: str) -> None:
        """Search for the text of a passage, which has to come first."""
        assert self._version is not None
        first = self._version.search(text, 10)[0]
        if first.text != text:
            raise RuntimeError(f"a search for the text of a passage found another one first, at {first.score:.3f}")


def _upload(pipeline: Pipeline, server: s3fs.S3FileSystem, bucket: str) -> Manifest:
    """Copy the newest version: its record, its manifest, and what that names, but for what no search reads."""
    store = pipeline.store
    number = store.versions.newest()
    assert number is not None
    manifest, ref = store.versions.manifest(number), store.versions.record(number).manifest
    # By the digests in its bytes, so that blobs are found however the manifest lists them.
    named = {digest.decode() for digest in re.findall(rb"[0-9a-f]{64}", store.blobs.get_bytes(ref))}
    named -= {blob.digest for blob in manifest.blobs if blob.role in _NOT_SEARCHED}
    keys = [f"blobs/sha256/{digest[:2]}/{digest}" for digest in sorted({ref.digest, *named})]
    keys += [key for key in store.objects.list("versions") if key.endswith(f"{number:020d}.json")]

    root = Path(store.uri.partition("://")[2])

    def copy(key: str) -> None:
        if (root / key).exists():
            server.put_file(str(root / key), f"{bucket}/kb/{key}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, keys))
    return manifest


def _texts(pipeline: Pipeline, manifest: Manifest) -> list[str]:
    """Texts of passages from all over the version, the longest of a part each: short ones may be there twice."""
    parts = manifest.of_role("chunks")
    places = np.linspace(0, len(parts) - 1, _QUERIES).astype(int).tolist()
    tables = [pipeline.store.blobs.get_table(parts[place].ref, ["text"]) for place in places]
    return [max(table.column("text").to_pylist(), key=len) for table in tables]
