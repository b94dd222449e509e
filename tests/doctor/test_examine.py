"""What `memorag doctor` finds of a spec: on real servers, each thing that can be wrong is told with what to do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.doctor import airflow as airflow_module
from memorag_pipeline.doctor import models as models_module
from memorag_pipeline.doctor.airflow import airflow_checks
from memorag_pipeline.doctor.findings import Check, Finding, findings_of
from memorag_pipeline.doctor.models import model_checks
from memorag_pipeline.doctor.places import place_checks
from memorag_pipeline.doctor.questions import question_checks
from memorag_pipeline.doctor.servers import server_checks
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage.objects import BACKENDS
from tests.adding.dict_store import DictObjects
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import READER, S3Server
from tests.generators.chat_server import ChatServer, Response, error
from tests.generators.conftest import server  # noqa: F401 - a fixture

MakeSpec = Callable[..., CorpusSpec]
PASSWORD = "hunter2-hunter2"


def found(checks: Iterator[Check]) -> dict[str, Finding]:
    """Findings by check."""
    return {finding.check: finding for finding in findings_of(list(checks))}


def write_spec(folder: Path, spec: CorpusSpec) -> Path:
    path = folder / "topics.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return path


def memorag(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "What is a lambda?", "answers": ["a function"]}\n', encoding="utf-8")
    return path


@pytest.fixture
def whole(source: Path, tmp_path: Path, make_spec: MakeSpec, questions: Path, server: ChatServer) -> CorpusSpec:  # noqa: F811
    """A spec that names something of every kind, all of it there."""
    warehouse = {"database": str(tmp_path / "rows.duckdb")}
    return make_spec(
        source,
        generation={"model": "m", "endpoint": {"base_url": server.url}},
        warehouse=warehouse,
        evaluation={"questions": {"uri": str(questions)}, "minimum": {"exact_match": 0.5}},
        jobs={
            "faq": {"questions": {"uri": str(questions)}, "warehouse": warehouse},
            "digests": {"kind": "summaries", "warehouse": warehouse},
        },
    )


@pytest.mark.models
def test_what_is_there_is_good_and_nothing_stays_behind(whole: CorpusSpec, tmp_path: Path, server: ChatServer) -> None:  # noqa: F811
    resolve("package:smollm2-135m-instruct")
    done = memorag("doctor", write_spec(tmp_path, whole), "--json")
    assert done.exit_code == 0, done.output
    findings = json.loads(done.stdout)
    assert [each["check"] for each in findings] == [
        "spec",
        "source.uris.0",
        "store",
        "memory.model",
        "embedding.model",
        "this machine",
        "jobs.faq.questions",
        "evaluation.questions",
        "warehouse",
        "jobs.digests.warehouse",
        "jobs.faq.warehouse",
        "generation.endpoint",
    ]
    assert {each["state"] for each in findings} == {"good"}
    texts = {each["check"]: each["found"] for each in findings}
    assert "12 objects, 12 match" in texts["source.uris.0"]
    assert "no version yet" in texts["store"] and not [
        path for path in (tmp_path / "store").rglob("*") if path.is_file()
    ]
    assert "'What is a lambda?'" in texts["jobs.faq.questions"]
    assert "a task needs" in texts["this machine"]
    (asked,) = server.seen
    assert asked.body["max_tokens"] == 1


@pytest.mark.models
def test_validate_connects_only_if_asked_to(whole: CorpusSpec, tmp_path: Path, server: ChatServer) -> None:  # noqa: F811
    path = write_spec(tmp_path, whole)
    done = memorag("validate", path)
    assert done.exit_code == 0 and not server.seen and not (tmp_path / "store").exists()
    assert "`memorag doctor SPEC` connects" in done.stdout
    server.answer = lambda seen, attempt: error(401, "no such key")
    done = memorag("validate", "--connect", path)
    assert done.exit_code == 9
    (line,) = (line for line in done.stdout.splitlines() if "generation.endpoint" in line)
    assert line.startswith("✗") and "does not accept the key" in line
    assert "1 of 11 checks" in done.stdout and "`memorag doctor SPEC` connects" not in done.stdout
    checks = json.loads(memorag("validate", "--connect", path, "--json").stdout)[str(path)]["checks"]
    assert [each["check"] for each in checks if each["state"] == "bad"] == ["generation.endpoint"]


def test_validate_refuses_what_can_be_known_without_connecting(make_spec: MakeSpec, tmp_path: Path) -> None:
    job = {"questions": {"uri": "nowhere.jsonl"}, "warehouse": {"database": "rows.duckdb"}}
    spec = make_spec(
        "s4://lake/docs",
        store={"uri": "gs://lake/kb"},
        evaluation={"questions": {"uri": "abfs://lake/gate.jsonl"}, "minimum": {"exact_match": 0.5}},
        jobs={"faq": job},
    )
    path = write_spec(tmp_path, spec)
    done = memorag("validate", path)
    assert done.exit_code == 3
    told = {line.partition(": ")[2].split(": ")[1]: line for line in done.stderr.splitlines()}
    assert "s4://, which fsspec does not know" in told["source.uris.0"]
    assert "versions cannot be stored on gs://; use s3://" in told["store.uri"]
    assert "abfs://, whose driver is not installed here" in told["evaluation.questions.uri"]
    assert "there is no such file on this machine" in told["jobs.faq.questions.uri"]
    # Only a job and a gate need the questions.
    told = memorag("dry-run", path).stderr
    assert "source.uris.0" in told and "store.uri" in told and "questions" not in told


def test_wrong_places_on_s3_are_told(make_spec: MakeSpec, s3_server: S3Server, questions: Path) -> None:
    bucket, options = s3_server.new_bucket(), s3_server.options()
    reader, stranger = s3_server.options(READER), s3_server.options({"key": READER["key"], "secret": PASSWORD})
    place = {"uris": [f"s3://{bucket}/docs"], "storage_options": options}

    def of(source: dict[str, Any], store: dict[str, Any]) -> dict[str, Finding]:
        return found(place_checks(make_spec("", source=place | source, store={"uri": f"s3://{bucket}/kb", **store})))

    findings = of({"uris": ["s3://no-such-bucket/docs"]}, {"storage_options": reader})
    assert "no such bucket or folder" in findings["source.uris.0"].found
    assert "cannot write s3://" in findings["store"].found and "permission denied" in findings["store"].found
    assert {finding.exit_code for finding in findings.values()} == {5}

    findings = of({"storage_options": stranger}, {"uri": "s3://no-such-bucket/kb", "storage_options": options})
    assert "permission denied" in findings["source.uris.0"].found and PASSWORD not in findings["source.uris.0"].found
    assert "there is no bucket 'no-such-bucket'" in findings["store"].found

    findings = of({}, {"storage_options": options})
    assert "holds no object" in findings["source.uris.0"].found and findings["source.uris.0"].exit_code == 4
    assert findings["store"].state == "good"
    spec = make_spec("docs", store={"uri": f"s3://{bucket}/kb", "storage_options": options})
    assert Pipeline(spec).store.objects.list("intents") == []


def test_a_store_that_replaces_objects_is_told(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(DictObjects):
        def create(self, path: str, data: bytes) -> bool:
            self.put(path, data)
            return True

    monkeypatch.setattr("tests.adding.dict_store.Careless", Careless, raising=False)
    monkeypatch.setitem(BACKENDS, "careless", "tests.adding.dict_store:Careless")
    spec = make_spec("memory://nothing", store={"uri": "careless://lake"})
    assert "two writers could both believe" in found(place_checks(spec))["store"].found
    assert Pipeline(spec).store.objects.list("intents") == []


def test_questions_that_cannot_be_read_are_told(make_spec: MakeSpec, tmp_path: Path, questions: Path) -> None:
    (tmp_path / "bad.csv").write_text("id,text\n1,Why?\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "gate.jsonl").write_text(questions.read_text() + '{"question": "Why?"}\n')
    warehouse = {"database": str(tmp_path / "rows.duckdb")}
    uris = {name: str(tmp_path / name) for name in ("bad.csv", "empty.jsonl", "nowhere.jsonl")}
    jobs = {name.partition(".")[0]: {"questions": {"uri": uri}, "warehouse": warehouse} for name, uri in uris.items()}
    jobs["query"] = {"questions": {"sql": "SELECT 1 AS question_id"}, "warehouse": warehouse}
    gate = {"questions": {"uri": str(tmp_path / "gate.jsonl")}, "minimum": {"exact_match": 0.5}}
    findings = found(question_checks(make_spec("docs", jobs=jobs, evaluation=gate)))
    assert {finding.state for finding in findings.values()} == {"bad"}
    assert "has no column 'question'; columns found: id, text" in findings["jobs.bad.questions"].found
    assert "there is no question" in findings["jobs.empty.questions"].found
    assert "no such question file" in findings["jobs.nowhere.questions"].found
    assert "there is no such file yet" in findings["jobs.query.questions"].found
    assert "1 rows cannot be used, the first: line 2" in findings["evaluation.questions"].found


def test_a_query_gives_its_first_question(make_spec: MakeSpec, postgres_url: str) -> None:
    warehouse = {"destination": "postgres", "database": postgres_url}
    sql = "SELECT n AS question_id, 'Why ' || n || '?' AS question FROM generate_series(1, 3) AS n;"
    spec = make_spec("docs", jobs={"faq": {"questions": {"sql": sql}, "warehouse": warehouse}})
    assert "begins with 'Why 1?'" in found(question_checks(spec))["jobs.faq.questions"].found


def test_a_wrong_password_of_the_warehouse_is_told(make_spec: MakeSpec, postgres_server: PostgresServer) -> None:
    url = f"postgresql://memorag:{PASSWORD}@{postgres_server.host}:{postgres_server.port}/postgres"
    warehouse = {"destination": "postgres", "database": url}
    spec = make_spec("docs", warehouse=warehouse, jobs={"digests": {"kind": "summaries", "warehouse": warehouse}})
    findings = found(server_checks(spec))
    assert list(findings) == ["warehouse", "jobs.digests.warehouse"]
    for finding in findings.values():
        assert finding.exit_code == 7 and "password authentication failed" in finding.found
        assert "user and password in warehouse.database" in finding.found and PASSWORD not in finding.found


def test_a_server_that_accepts_and_never_answers_does_not_hang_the_command(make_spec: MakeSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/postgres"
        spec = make_spec("docs", warehouse={"destination": "postgres", "database": url})
        (finding,) = findings_of(list(server_checks(spec)), 0.5)
    assert finding.exit_code == 7 and "no answer within 0.5 s" in finding.found


def test_an_endpoint_is_asked_for_one_token(make_spec: MakeSpec, server: ChatServer, monkeypatch: Any) -> None:  # noqa: F811
    endpoint = {"base_url": server.url, "key_variable": "TEST_KEY", "retries": 5}
    spec = make_spec("docs", generation={"model": "m", "endpoint": endpoint})
    monkeypatch.setenv("TEST_KEY", PASSWORD)

    def look(answer: Any) -> Finding:
        server.answer = answer
        return found(server_checks(spec))["generation.endpoint"]

    assert look(lambda seen, attempt: error(500, f"{PASSWORD} is no use")).exit_code == 9
    assert len(server.seen) == 1  # tried once
    assert PASSWORD not in look(lambda seen, attempt: error(400, f"{PASSWORD} is no use")).found
    assert "does not know the model 'm'" in look(lambda seen, attempt: error(404)).found
    # One token may be no text yet: the model has answered.
    cut = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}], "usage": {}}
    assert look(lambda seen, attempt: Response(cut)).state == "good"
    monkeypatch.delenv("TEST_KEY")
    assert "TEST_KEY is not set" in found(server_checks(spec))["generation.endpoint"].found


@pytest.mark.models
def test_too_little_memory_is_told(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve("package:smollm2-135m-instruct")  # before it is converted its size is not known
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(models_module, "_free_bytes", lambda: 10**6)
    finding = found(model_checks(make_spec("docs")))["this machine"]
    assert finding.state == "bad" and "a task needs" in finding.found and "smaller model" in finding.found
    sent = found(model_checks(make_spec("docs", compute={"queue": "gpu"})))["this machine"]
    assert sent.state == "not looked" and "on their workers" in sent.found


def test_without_airflow_what_needs_it_is_not_looked_at(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_module, "_is_installed", lambda: False)
    spec = make_spec(
        "",
        source={"uris": ["s3://lake/docs"], "connection_id": "lake"},
        store={"uri": "s3://lake/kb", "connection_id": "lake"},
        warehouse={"destination": "postgres", "connection_id": "rows"},
        compute={"pool": "gpu"},
    )
    findings = found(airflow_checks(spec)) | found(place_checks(spec)) | found(server_checks(spec))
    names = ["connection lake", "connection rows", "compute.pool", "source.uris.0", "store", "warehouse"]
    assert list(findings) == names
    assert {finding.state for finding in findings.values()} == {"not looked"}
    assert all("Airflow is not installed here" in finding.found for finding in findings.values())


@pytest.mark.airflow
def test_connections_and_pools_of_airflow_are_resolved(
    make_spec: MakeSpec, airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "password": PASSWORD}))
    with create_session() as session:
        stored = Connection("stored", conn_type="postgres", host="127.0.0.1", schema="x", password=PASSWORD)
        session.add(stored)
    spec = make_spec(
        "",
        source={"uris": ["s3://lake/docs"], "connection_id": "lake"},
        store={"uri": "s3://lake/kb", "connection_id": "nowhere"},
        warehouse={"destination": "postgres", "connection_id": "stored"},
        compute={"pool": "no_such_pool"},
    )
    findings = found(airflow_checks(spec))
    assert findings["connection lake"].found == "there, of type aws"
    assert findings["connection stored"].found == "there, of type postgres"  # of the metadata database
    assert "no connection 'nowhere'; add it" in findings["connection nowhere"].found
    assert "there is no pool no_such_pool" in findings["compute.pool"].found
    assert "memorag airflow setup" in findings["compute.pool"].found
    with create_session() as session:
        session.delete(session.merge(stored))
    monkeypatch.delenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    monkeypatch.setenv("AIRFLOW_HOME", "/nowhere")
    assert found(airflow_checks(spec))["compute.pool"].state == "not looked"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, Any]]]:
    """A hub with the responses given, by path."""
    from huggingface_hub import constants

    answers: dict[str, tuple[int, Any]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, {}))
            data = json.dumps(body).encode()
            self.send_response(status)
            if status == 403:
                self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{served.server_port}")
    yield answers
    served.shutdown()
    served.server_close()


def test_a_gated_model_is_told(hub: dict[str, tuple[int, Any]]) -> None:
    from memorag_pipeline.errors import NotFoundError
    from memorag_pipeline.models.hub import told_of

    files = [{"rfilename": "model.safetensors", "size": 4_000_000_000}, {"rfilename": "README.md", "size": 9}]
    hub["/api/models/org/open"] = (200, {"id": "org/open", "gated": False, "siblings": files})
    hub["/api/models/org/gated"] = (200, {"id": "org/gated", "gated": "manual", "siblings": files})
    hub["/api/models/org/gated/auth-check"] = (403, {"error": "gated"})
    assert told_of("org/open", None, False) == "not gated, 4.0 GB of weights are fetched at the first use"
    with pytest.raises(NotFoundError, match=r"it is gated.*accept its terms.*HF_TOKEN"):
        told_of("org/gated", None, False)
    assert "what is here is used" in told_of("org/gated", None, True)
    hub["/api/models/org/gated/auth-check"] = (200, {})
    assert told_of("org/gated", None, True) == "gated, and open to you"
    with pytest.raises(NotFoundError, match="org/none: not on this machine"):
        told_of("org/none", None, False)


def test_the_command_refuses_a_wrong_spec(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("corpus: Wrong\n", encoding="utf-8")
    done = memorag("doctor", path)
    assert done.exit_code == 3 and "corpus: is not a name" in done.stderr and not done.stdout
    assert os.listdir(tmp_path) == ["wrong.yaml"]
