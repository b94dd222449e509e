"""A full refresh and answers over a network that fails one request in eight equal those over a good one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import s3fs

from memorag_pipeline import open_version
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage.verify import verify
from tests.fixtures.s3 import S3Server
from tests.storage.unreliable_proxy import FAULTS, unreliable

EDIT = b"\nIt can stand wherever a statement is needed.\n"

MakePipeline = Callable[[str, str], Pipeline]


@pytest.fixture
def make_pipeline(s3_server: S3Server, tiny_models: dict[str, Any]) -> MakePipeline:
    """A pipeline from a bucket's documents into a store in another bucket, all through one endpoint."""

    def make(bucket: str, store: str, endpoint: str = s3_server.endpoint) -> Pipeline:
        options = {**s3_server.options(), "endpoint_url": endpoint}
        values: dict[str, Any] = {
            "corpus": "topics",
            "source": {"uris": [f"s3://{bucket}/documents"], "storage_options": options, "documents_per_part": 2},
            "store": {"uri": f"s3://{store}/kb", "storage_options": options},
            "sharding": {"max_tokens": 512, "min_tokens": 64},
            **tiny_models,
        }
        return Pipeline(CorpusSpec.model_validate(values))

    return make


def documents(server: S3Server, names: tuple[str, ...]) -> str:
    bucket = server.new_bucket()
    s3 = s3fs.S3FileSystem(**server.options())
    for name in names:
        s3.pipe_file(f"{bucket}/documents/{name}.rst", topics[name].encode())
    return bucket


def require_equal_refreshes(
    server: S3Server, make: Callable[..., Pipeline], names: tuple[str, ...], share: float, seed: int
) -> int:
    """Two days of a corpus, refreshed with and without faults, give equal manifests; how many faults there were."""
    bucket = documents(server, names)
    s3 = s3fs.S3FileSystem(**server.options())
    calm = make(bucket, server.new_bucket())
    with unreliable(server.endpoint, share, seed) as proxy:
        stormy = make(bucket, server.new_bucket(), proxy.endpoint)
        for day in (1, 2):
            expected, found = refresh(calm, f"calm-{day}"), refresh(stormy, f"stormy-{day}")
            assert (found.version, found.created, found.counts) == (day, True, expected.counts)
            assert stormy.store.versions.manifest(day) == calm.store.versions.manifest(day)
            s3.pipe_file(f"{bucket}/documents/{names[0]}.rst", topics[names[0]].encode() + EDIT)
        assert refresh(stormy, "stormy-3").created is False
        assert verify(stormy.store, 2) == []
        options = stormy.spec.store.storage_options
        version = open_version(stormy.store.uri, storage_options=options, trust_models=True)
        assert version.search("Which statement does nothing?", k=1)[0].uri.endswith(".rst")
        return sum(proxy.struck.values())


def test_a_refresh_runs_to_its_end_through_faults(
    s3_server: S3Server, make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    assert require_equal_refreshes(s3_server, make_pipeline, ("pass",), share=0.125, seed=11) >= len(FAULTS)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_larger_refreshes_run_to_their_end_through_more_faults(
    s3_server: S3Server, make_pipeline: Callable[..., Pipeline], seed: int
) -> None:
    names = ("lambda", "pass", "break", "continue", "await", "nonlocal", "del", "while", "if", "assert")
    assert require_equal_refreshes(s3_server, make_pipeline, names, share=0.15, seed=seed) > 20
