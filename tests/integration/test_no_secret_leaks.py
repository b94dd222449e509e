"""Secrets that a spec holds are in nothing that a run writes: logs, output, errors, store, warehouse, packages."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import s3fs
import yaml
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import MemoragError
from tests.fixtures.s3 import ADMIN, S3Server

WRONG = "this-secret-opens-nothing"
SECRETS = (ADMIN["secret"], WRONG)


@pytest.fixture
def write_spec(s3_server: S3Server, tmp_path: Path) -> Callable[..., Path]:
    """Write a spec of a corpus in a fresh bucket; keyword arguments replace its sections."""
    bucket = s3_server.new_bucket()
    s3 = s3fs.S3FileSystem(**s3_server.options())
    s3.pipe_file(f"{bucket}/documents/break.rst", topics["break"].encode())
    s3.pipe_file(f"{bucket}/questions.jsonl", json.dumps({"question_id": "q", "question": "What is break?"}).encode())
    options = s3_server.options()
    job = {
        "questions": {"uri": f"s3://{bucket}/questions.jsonl", "storage_options": options},
        "warehouse": {"database": str(tmp_path / "answers.duckdb")},
        "clues": ["surrogates"],
        "clue_tokens": 8,
        "shards_per_question": 1,
    }

    def write(**sections: Any) -> Path:
        values = {
            "corpus": "topics",
            "source": {"uris": [f"s3://{bucket}/documents"], "storage_options": options},
            "store": {"uri": f"s3://{bucket}/kb", "storage_options": options},
            "sharding": {"max_tokens": 512, "min_tokens": 64},
            "memory": {"kind": "full", "model": "package:smollm2-135m-instruct", "window": 64},
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            "generation": {"max_new_tokens": 8, "evidence_tokens": 128},
            "jobs": {"faq": job},
        }
        path = tmp_path / "topics.yaml"
        path.write_text(yaml.safe_dump({**values, **sections}), encoding="utf-8")
        return path

    return write


def test_no_secret_is_written_anywhere(
    s3_server: S3Server,
    write_spec: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    run_reports: None,
) -> None:
    written: list[str] = []
    caplog.set_level(logging.DEBUG, logger="memorag_pipeline")

    def memorag(*arguments: object, code: int = 0) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        written.extend((result.stdout, result.stderr))
        error = result.exception
        while error is not None:
            written.extend(traceback.format_exception(error))
            error = error.__cause__ or error.__context__
        assert result.exit_code == code, result.output

    good = write_spec()
    memorag("refresh", good, "--json", "--verbose")
    memorag("answer", good, "faq", "--verbose")
    monkeypatch.setenv("MEMORAG_CACHE_GB", "1")
    for command in (
        ["verify", good],
        ["show", good, "--json"],
        ["report", good, "--out", tmp_path / "report.html"],
        ["report", good, "faq", "--json"],
        ["versions", good],
        ["promote", good, "production", 1, "--why", "good"],
        ["export", good, 1, tmp_path / "package.tar"],
        ["import", tmp_path / "package.tar", good],
    ):
        memorag(*command)

    options = s3_server.options()
    store = yaml.safe_load(good.read_text())["store"]
    for wrong, code in (
        ({**store, "storage_options": {**options, "secret": WRONG}}, 5),
        ({**store, "storage_options": {**options, "endpoint_url": "http://127.0.0.1:9"}}, 5),
        ({**store, "storage_options": {**options, "endpont_url": "http://127.0.0.1:9"}}, 5),
        ({**store, "storage_options": {**options, "client_kwargs": [ADMIN["secret"]]}}, 5),
        ({**store, "connection_id": "aws"}, 3),
        ({**store, "storage_options": [ADMIN["secret"]]}, 3),
        ({**store, "storage_options": ADMIN["secret"]}, 3),
        ({**store, "uri": "s3://no-such-bucket/kb"}, 5),
    ):
        memorag("refresh", write_spec(store=wrong), "--verbose", code=code)

    output = capfd.readouterr()
    texts = {"output": "".join(written), "stdout": output.out, "stderr": output.err, "log": caplog.text}
    assert len(texts["output"]) > 1000 and "topics" in texts["output"]
    files = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != good}
    assert {"answers.duckdb", "package.tar"} <= {Path(path).name for path in files}
    s3 = s3fs.S3FileSystem(**options)
    objects = {key: s3.cat_file(key) for key in s3.find(store["uri"].removeprefix("s3://"))}
    assert len(objects) > 10
    assert {key.rpartition(".")[2] for key in objects if "/reports/" in key} == {"html", "json"}
    for name, data in {**{key: text.encode() for key, text in texts.items()}, **files, **objects}.items():
        for secret in SECRETS:
            assert secret.encode() not in data, f"{secret} is in {name}"


def test_errors_that_a_service_catches_hold_no_secret(s3_server: S3Server) -> None:
    from memorag_pipeline import open_version

    for options in (
        {**s3_server.options(), "secret": WRONG},
        {**s3_server.options(), "endpont_url": "x", "secret": WRONG},
        {**s3_server.options(), "endpoint_url": "x", "secret": WRONG},
    ):
        with pytest.raises(MemoragError) as caught:
            open_version("s3://bucket-of-none/kb/topics", storage_options=options)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert WRONG not in shown
    assert sys.exc_info() == (None, None, None)
