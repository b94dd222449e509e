"""Operators and DAGs must load quickly: Airflow imports them in every parse and in every task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAVY = ("torch", "transformers", "FlagEmbedding", "sentence_transformers", "faiss", "pypdfium2", "duckdb")

# Processor seconds: wall time would measure what else the machine does.
MEASURE = """
import json, sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
started = time.process_time()
{work}
seconds = time.process_time() - started
print("RESULT", json.dumps({{"seconds": seconds, "modules": sorted(sys.modules), "result": result}}))
"""


def test_operators_import_in_under_a_third_of_a_second_and_load_nothing_heavy() -> None:
    measured = measure("import memorag_operators as o\nresult = [getattr(o, name).__name__ for name in o.__all__]")
    assert "MemorizeOperator" in measured["result"]
    assert measured["seconds"] < 0.3
    assert not set(HEAVY) & set(measured["modules"])


def test_the_dag_folder_parses_in_under_two_seconds_and_loads_nothing_heavy() -> None:
    folder = Path(__file__).parents[2] / "dags"
    measured = measure(f"bag = DagBag({str(folder)!r})\nresult = [sorted(bag.dags), bag.import_errors]")
    assert measured["result"] == [
        [
            "python_reference-adapter_train",
            "python_reference_backfill",
            "python_reference_faq",
            "python_reference_refresh",
        ],
        {},
    ]
    assert measured["seconds"] < 2
    assert not set(HEAVY) & set(measured["modules"])


def test_the_plugin_of_the_ui_costs_other_components_nothing_and_the_api_server_no_torch() -> None:
    work = (
        "from memorag_operators.ui_plugin import MemoragPlugin\n"
        "result = sorted(sys.modules)\n"
        "from memorag_operators.ui_app import make_app\n"
        "make_app()"
    )
    measured = measure(work)
    assert not {*HEAVY, "fastapi", "matplotlib", "memorag_pipeline"} & set(measured["result"])
    assert not {*HEAVY, "matplotlib"} & set(measured["modules"])


def measure(work: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "MEMORAG_SPECS"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(work=work)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(result.removeprefix("RESULT "))
