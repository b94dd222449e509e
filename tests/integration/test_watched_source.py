"""A watched source on a real S3 server: the triggerer sees that documents came, and a refresh starts by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec
from tests.fixtures.s3 import S3Server
from tests.integration.test_full_stack import connect, local_airflow, wait

pytest.importorskip("airflow")
pytestmark = pytest.mark.long

WATCH = {"every_seconds": 5, "quiet_seconds": 8}


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[s3fs.S3FileSystem]:
    """A file system over one fresh bucket, whose name is its attribute `bucket`."""
    found = s3fs.S3FileSystem(**s3_server.options(), skip_instance_cache=True, use_listings_cache=False)
    found.bucket = s3_server.new_bucket()
    yield found
    found.rm(found.bucket, recursive=True)


@pytest.fixture
def corpus(
    bucket: s3fs.S3FileSystem, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec], write_spec: WriteSpec
) -> Pipeline:
    """A corpus of one document; the triggerer and the tasks reach its source through an Airflow connection."""
    put(bucket, "first", "The first document is there before anybody watches.")
    spec = make_tiny_spec(f"s3://{bucket.bucket}/documents", watch=WATCH)
    reached = spec.source.model_copy(update={"connection_id": "documents"})
    write_spec(spec.model_copy(update={"source": reached}))
    return Pipeline(spec)


@pytest.fixture
def stack(corpus: Pipeline, s3_server: S3Server, tmp_path: Path) -> Iterator[Any]:
    """A running stack with the connection."""
    with local_airflow(tmp_path / "airflow") as running:
        connect(running, "documents", s3_server.options())
        yield running


def test_documents_that_come_start_one_refresh(corpus: Pipeline, bucket: s3fs.S3FileSystem, stack: Any) -> None:
    def ended(number: int) -> Any:
        runs = stack.call("GET", "/api/v2/dags/topics_refresh/dagRuns?order_by=run_after")["dag_runs"]
        assert len(runs) <= number
        return runs if [run["state"] for run in runs] == ["success"] * number else None

    wait(stack, "the first refresh", lambda: ended(1), 900)
    assert documents_of(corpus, 1) == {"first"}

    # The second one comes while the watcher waits for quiet after the first.
    put(bucket, "second", "The second document is put while the stack runs.")
    time.sleep(WATCH["quiet_seconds"] / 2)
    put(bucket, "third", "The third document follows it closely.")
    runs = wait(stack, "the second refresh", lambda: ended(2), 900)
    assert {run["run_type"] for run in runs} == {"asset_triggered"}
    assert documents_of(corpus, 2) == {"first", "second", "third"}
    # Nothing changed since: several more listings start nothing.
    time.sleep(4 * WATCH["every_seconds"])
    assert len(ended(2)) == 2


def put(bucket: s3fs.S3FileSystem, name: str, text: str) -> None:
    bucket.pipe_file(f"{bucket.bucket}/documents/{name}.rst", f"{text}\n".encode())


def documents_of(corpus: Pipeline, version: int) -> set[str]:
    """The names of the documents that a version holds."""
    from memorag_pipeline.version import Version

    return {Path(row["uri"]).stem for row in Version(corpus.store, version, trust_models=True).documents()}
