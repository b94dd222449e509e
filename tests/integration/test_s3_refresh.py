"""The whole way on a real S3 server: source and store are buckets, answers land in a warehouse, a service opens it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import duckdb
import pytest
import s3fs

from memorag_pipeline import open_version
from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import answer, refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.diff import diff
from memorag_pipeline.storage.verify import verify
from tests.fixtures.s3 import ADMIN, READER, S3Server

NAMES = ("break", "pass", "lambda", "global")
QUESTIONS = [
    {"question_id": "loop", "question": "What does the break statement do in a loop?"},
    {"question_id": "silence", "question": ""},
]


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """A bucket with four documents and a question file."""
    name = s3_server.new_bucket()
    s3 = s3fs.S3FileSystem(**s3_server.options())
    for topic in NAMES:
        s3.pipe_file(f"{name}/documents/{topic}.rst", topics[topic].encode())
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    s3.pipe_file(f"{name}/questions.jsonl", lines.encode())
    return name


@pytest.fixture(scope="module")
def make_pipeline(
    s3_server: S3Server, bucket: str, tiny_models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Pipeline]:
    """A pipeline from the bucket into itself; keyword arguments replace sections of the spec."""
    folder = tmp_path_factory.mktemp("warehouse")
    options = s3_server.options()

    def make(**sections: Any) -> Pipeline:
        job = {
            "questions": {"uri": f"s3://{bucket}/questions.jsonl", "storage_options": options},
            "warehouse": {"database": str(folder / "answers.duckdb")},
            "clues": ["surrogates"],
            "clue_tokens": 16,
            "shards_per_question": 1,
            "evidence": 2,
        }
        values = {
            "corpus": "topics",
            "source": {"uris": [f"s3://{bucket}/documents"], "storage_options": options},
            "store": {"uri": f"s3://{bucket}/kb", "storage_options": options},
            "sharding": {"max_tokens": 512, "min_tokens": 64},
            "memory": tiny_models["memory"],
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            "generation": {"max_new_tokens": 16, "evidence_tokens": 256},
            "jobs": {"faq": job},
        }
        return Pipeline(CorpusSpec.model_validate({**values, **sections}))

    return make


@pytest.fixture(scope="module")
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """The pipeline with version 1 published."""
    made = make_pipeline()
    first = refresh(made, "run-1")
    assert (first.version, first.created) == (1, True)
    return made


@pytest.fixture
def version_uri(bucket: str) -> str:
    return f"s3://{bucket}/kb/topics"


def test_a_bucket_becomes_a_version_that_a_service_searches_and_asks(
    pipeline: Pipeline, s3_server: S3Server, version_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fresh:  # an empty cache of blobs, as on a new machine; the models stay where they are
        fresh.setenv("MEMORAG_CACHE", str(tmp_path))
        version = open_version(version_uri, version=1, storage_options=s3_server.options(READER), trust_models=True)
    assert version.manifest.counts["documents"] == len(NAMES)
    (best,) = version.search("Which statement ends the nearest enclosing loop?", k=1)
    assert best.uri.endswith("/documents/break.rst")
    assert topics["break"][best.start : best.end] == best.text
    assert all(memory.tokens > 0 for memory in version.memories().values())
    (reply,) = version.answer([QUESTIONS[0]["question"]])
    assert reply.status == "answered"
    assert any(passage.uri.endswith("/documents/break.rst") for passage in reply.evidence)
    assert verify(version.store, 1) == []


def test_a_job_reads_its_questions_from_the_bucket_and_lands_its_rows(pipeline: Pipeline) -> None:
    result = answer(pipeline, "faq", version=1)
    assert (result.version, result.rows) == (1, 2)
    assert answer(pipeline, "faq", version=1).rows == 2
    with duckdb.connect(str(pipeline.spec.job("faq").warehouse.database), read_only=True) as warehouse:
        rows = warehouse.sql(
            "SELECT question_id, status, evidence::VARCHAR FROM memorag.answers ORDER BY question_id"
        ).fetchall()
    assert [(question_id, status) for question_id, status, _ in rows] == [("loop", "answered"), ("silence", "error")]
    assert "/documents/break.rst" in rows[0][2]


def test_a_refresh_costs_what_changed_and_nothing_when_nothing_did(
    pipeline: Pipeline, s3_server: S3Server, bucket: str
) -> None:
    s3 = s3fs.S3FileSystem(**s3_server.options())
    s3.pipe_file(f"{bucket}/documents/pass.rst", topics["pass"].encode())  # the same bytes, written again
    same = refresh(pipeline, "run-2")
    assert (same.version, same.created) == (1, False)

    s3.pipe_file(f"{bucket}/documents/pass.rst", topics["pass"].encode() + b"\nIt does nothing at all.\n")
    second = refresh(pipeline, "run-3")
    assert (second.version, second.created) == (2, True)
    assert second.counts["embed"]["embedded"] < second.counts["index"]["vectors"]
    found = diff(pipeline.store, 1, 2)
    assert found.documents.changed == (f"s3://{bucket}/documents/pass.rst",)
    assert found.documents.added == found.documents.removed == ()
    assert len(found.memories.added + found.memories.changed) == 1
    assert verify(pipeline.store, 2) == []


def test_no_secret_gets_into_the_bucket(pipeline: Pipeline, s3_server: S3Server, bucket: str) -> None:
    s3 = s3fs.S3FileSystem(**s3_server.options())
    keys = s3.find(f"{bucket}/kb")
    assert len(keys) > 20
    assert [key for key in keys if ADMIN["secret"].encode() in s3.cat_file(key)] == []


def test_a_store_without_write_permission_is_told_and_keeps_its_versions(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], s3_server: S3Server
) -> None:
    before = list(pipeline.store.versions.numbers())
    reader = {"uri": pipeline.spec.store.uri, "storage_options": s3_server.options(READER)}
    chunking = {"max_tokens": 128}
    with pytest.raises(StorageError, match=r"cannot write s3://.*: permission denied .*; check the credentials"):
        refresh(make_pipeline(store=reader, chunking=chunking), "run-4")
    assert list(pipeline.store.versions.numbers()) == before


def test_a_wrong_bucket_is_told(make_pipeline: Callable[..., Pipeline], s3_server: S3Server) -> None:
    wrong = {"storage_options": s3_server.options()}
    with pytest.raises(StorageError, match="no-such-bucket"):
        refresh(make_pipeline(store={"uri": "s3://no-such-bucket/kb", **wrong}), "run-5")
    with pytest.raises(StorageError, match="no-such-bucket"):
        refresh(make_pipeline(source={"uris": ["s3://no-such-bucket/documents"], **wrong}), "run-5")


def test_a_corrupted_blob_is_told_and_the_version_before_stays_whole(
    pipeline: Pipeline, s3_server: S3Server, version_uri: str
) -> None:
    newest = pipeline.store.versions.newest()
    assert newest is not None and newest > 1
    changed = diff(pipeline.store, 1, newest).memories
    shard = (*changed.changed, *changed.added)[0]
    (blob,) = [b for b in pipeline.store.versions.manifest(newest).of_role("memory") if shard in b.path]
    data = bytearray(pipeline.store.blobs.get_bytes(blob.ref))
    data[-1] ^= 1
    pipeline.store.objects.put(blob.ref.key, bytes(data))

    (problem,) = verify(pipeline.store, newest)
    assert (problem.path, problem.problem) == (blob.path, "was altered: its SHA-256 is another")
    fresh = CorpusStore(version_uri, s3_server.options())
    with pytest.raises(CorruptBlobError, match=f"{blob.path}: blob sha256:{blob.digest} at s3://.* was altered"):
        fresh.blobs.get_bytes(blob.ref, blob.path)
    assert verify(pipeline.store, 1) == []
