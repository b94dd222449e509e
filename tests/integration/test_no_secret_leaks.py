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
def write_spec(s3_server: S3Server, tiny_models: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
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
            **tiny_models,
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
        ["doctor", good],
        ["verify", good],
        ["show", good, "--json"],
        ["report", good, "--out", tmp_path / "report.html"],
        ["report", good, "faq", "--json"],
        ["versions", good],
        ["promote", good, "production", 1, "--why", "good"],
        ["export", good, 1, tmp_path / "package.tar"],
        ["import", tmp_path / "package.tar", good, "--trust-models"],
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


# Ways to put a secret where it does not belong: sections of the spec to replace, by way.
MISPLACED: dict[str, dict[str, Any]] = {
    "password in memory.model": {"memory": {"kind": "full", "model": f"https://me:{WRONG}@127.0.0.1:9/model"}},
    "token in memory.model": {"memory": {"kind": "full", "model": f"https://{WRONG}@127.0.0.1:9/model"}},
    "key in memory.adapter": {
        "memory": {"kind": "beacon", "model": "package:smollm2-135m-instruct", "adapter": f"s3://key:{WRONG}@b/a@1"}
    },
    "presigned embedding.model": {
        "embedding": {"model": f"https://127.0.0.1:9/m?X-Amz-Expires=9&X-Amz-Signature={WRONG}", "pooling": "mean"}
    },
    "shared access signature of a source": {"source": {"uris": [f"abfs://c@account/docs?sv=1&sig={WRONG}"]}},
    "token of a source": {"source": {"uris": [f"https://{WRONG}@127.0.0.1:9/docs"]}},
    "key in store.uri": {"store": {"uri": f"s3://key:a/{WRONG}@bucket/kb"}},
    "token of a reranker": {"retrieval": {"reranker": {"model": f"https://127.0.0.1:9/m?access_token={WRONG}"}}},
    "token of prompts": {"prompts": f"https://{WRONG}@127.0.0.1:9/prompts"},
    "key in base_url": {"generation": {"model": "m", "endpoint": {"base_url": f"https://{WRONG}@127.0.0.1:9/v1"}}},
    "webhook as an unknown key": {"alerts": {"webhook": f"https://127.0.0.1:9/{WRONG}"}},
    "webhook as a connection": {"alerts": {"connection_id": f"https://127.0.0.1:9/{WRONG}"}},
    "webhook as a number": {"alerts": {"deadline_minutes": f"https://127.0.0.1:9/{WRONG}"}},
    "unknown section": {"slack": {"webhook": WRONG}, "hook": WRONG},
    "unknown key of a list": {"alerts": {"hooks": [WRONG]}},
    "endpoint_url with a password": {
        "store": {"uri": "s3://b/kb", "storage_options": {"endpoint_url": f"http://me:{WRONG}@127.0.0.1:9"}}
    },
    "endpoint_url with a signature": {
        "store": {"uri": "s3://b/kb", "storage_options": {"endpoint_url": f"http://127.0.0.1:9?sig={WRONG}"}}
    },
    "endpoint_url of the client": {
        "store": {
            "uri": "s3://b/kb",
            "storage_options": {"client_kwargs": {"endpoint_url": f"http://{WRONG}@127.0.0.1:9"}},
        }
    },
}


@pytest.mark.parametrize("way", MISPLACED)
def test_a_misplaced_secret_is_refused_and_written_nowhere(
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    run_reports: None,
) -> None:
    caplog.set_level(logging.DEBUG)
    # Sections that are right would be tried on real models, which takes time and shows nothing of the others.
    monkeypatch.setattr("memorag_pipeline.preflight.check", lambda *_: [])
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "break.rst").write_text(topics["break"], encoding="utf-8")
    values: dict[str, Any] = {
        "corpus": "topics",
        "source": {"uris": [str(tmp_path / "documents")]},
        "store": {"uri": str(tmp_path / "kb")},
        "memory": {"kind": "full", "model": "package:smollm2-135m-instruct"},
        "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
        "warehouse": {"database": str(tmp_path / "runs.duckdb")},
        **MISPLACED[way],
    }
    spec = tmp_path / "specs" / "topics.yaml"
    spec.parent.mkdir()
    spec.write_text(yaml.safe_dump(values), encoding="utf-8")
    written = [caplog.text]
    for command in (["validate", spec], ["dry-run", spec], ["refresh", spec, "--verbose"], ["show", spec]):
        result = CliRunner().invoke(app, [str(argument) for argument in command])
        assert result.exit_code == 3, result.output
        written += [result.stdout, result.stderr]
        error = result.exception
        while error is not None:
            written += traceback.format_exception(error)
            error = error.__cause__ or error.__context__
    assert "topics.yaml" in written[1] + written[2]
    written += [caplog.text, *capfd.readouterr()]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != spec]
    assert all(WRONG not in text for text in written)
    assert all(WRONG.encode() not in path.read_bytes() for path in files)


def test_errors_that_a_service_catches_hold_no_secret(s3_server: S3Server) -> None:
    from memorag_pipeline import open_version

    for options in (
        {**s3_server.options(), "secret": WRONG},
        {**s3_server.options(), "endpont_url": "x", "secret": WRONG},
        {**s3_server.options(), "endpoint_url": "x", "secret": WRONG},
        {**s3_server.options(), "endpoint_url": f"http://me:{WRONG}@127.0.0.1:9"},
        {**s3_server.options(), "client_kwargs": {"endpoint_url": f"http://127.0.0.1:9/?token={WRONG}"}},
    ):
        with pytest.raises(MemoragError) as caught:
            open_version("s3://bucket-of-none/kb/topics", storage_options=options)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert WRONG not in shown
    with pytest.raises(MemoragError) as caught:
        open_version(f"s3://key:{WRONG}@bucket-of-none/kb/topics")
    assert WRONG not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert sys.exc_info() == (None, None, None)
