"""What `make airflow` passes on and prints, without starting it; tests/integration/test_full_stack.py starts it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.integration.test_full_stack import airflow_local


@pytest.mark.parametrize(("arguments", "port"), [([], 8080), (["PORT=8091"], 8091)])
def test_make_airflow_takes_a_port(arguments: list[str], port: int) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "airflow", *arguments],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"infra/airflow_local.py --port {port}\n" in done.stdout


def test_a_second_shell_is_told_what_to_export_and_no_secret(tmp_path: Path) -> None:
    stack = airflow_local().LocalAirflow(tmp_path / "it's here", 8091, {"MEMORAG_SPECS": str(tmp_path)})
    script = f"{stack.exports()}\nenv"
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    home = tmp_path / "it's here"
    assert told["AIRFLOW_HOME"] == str(home)
    assert told["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{home / 'airflow.db'}"
    assert told["MEMORAG_SPECS"] == str(tmp_path)
    assert {"MEMORAG_CACHE", "AIRFLOW__CORE__DAGS_FOLDER"} <= told.keys()
    assert [name for name in told if "SECRET" in name] == []
