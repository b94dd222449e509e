"""What tasks read and wrote, as OpenLineage datasets; and, in a separate run, as events in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

pytest.importorskip("airflow.providers.openlineage")
operators = pytest.importorskip("memorag_operators")

WAREHOUSE = {"destination": "postgres", "database": "postgresql://me:secret@db.example/wh"}
JOB = {"questions": {"uri": "s3://docs/questions.jsonl"}, "warehouse": WAREHOUSE}


def names(datasets: Any) -> list[tuple[str, str]]:
    return [(dataset.namespace, dataset.name) for dataset in datasets]


def test_source_version_and_tables_are_named_without_secrets(make_spec: Callable[..., CorpusSpec]) -> None:
    from airflow.sdk import DAG

    spec = make_spec("s3://docs/handbook", store={"uri": "s3://bucket/kb"}, warehouse=WAREHOUSE, jobs={"faq": JOB})
    source, version = [("s3://docs", "handbook")], [("s3://bucket", "kb/topics")]

    def found(operator: Any, **result: Any) -> Any:
        operator.done = spec, result
        return operator.get_openlineage_facets_on_complete(None)

    with DAG("topics_faq"):
        stage = {"spec_file": "a.yaml"}
        memorize = found(operators.MemorizeOperator(task_id="memorize", batch="", **stage))
        published = found(operators.PublishOperator(task_id="publish", plan="", **stage), version=7)
        loaded = found(operators.LoadOperator(task_id="load", plan="", **stage), version=7)
        recorded = found(operators.RecordOperator(task_id="record", **stage), status="published")
    assert (names(memorize.inputs), names(memorize.outputs)) == (source, [])
    assert (names(published.inputs), names(published.outputs)) == (source, version)
    assert published.outputs[0].facets["version"].datasetVersion == "7"
    tables = [("postgres://db.example:5432", f"wh.memorag.{table}") for table in ("answers", "evidence", "runs")]
    assert (names(loaded.inputs), names(loaded.outputs)) == (version, tables)
    assert names(recorded.outputs) == [(tables[0][0], f"wh.memorag.{table}") for table in ("runs", "quarantine")]


@pytest.mark.long
def test_a_refresh_sends_events_by_the_provider_s_transport(
    airflow_home: Path, source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, tmp_path: Path
) -> None:
    for path in source.iterdir():
        if path.stem != "pass":
            path.unlink()
    spec = make_spec(source)
    write_spec(spec)
    events = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", "topics_refresh"],
        env={**os.environ, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sent = [json.loads(line) for line in events.read_text().splitlines()]
    tasks = {e["job"]["name"].rpartition(".")[2]: e for e in sent if e["eventType"] == "COMPLETE"}
    assert [(each["namespace"], each["name"]) for each in tasks["memorize"]["inputs"]] == [("file", str(source))]
    (version,) = tasks["publish"]["outputs"]
    assert (version["namespace"], version["name"]) == ("file", f"{spec.store.uri}/topics")
    assert version["facets"]["version"]["datasetVersion"] == "1"
