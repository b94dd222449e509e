"""The compose file: the schema of compose-spec, and commands that Airflow has."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.infra.files import INFRA, airflow_services, document

cli_parser = pytest.importorskip("airflow.cli.cli_parser")


def test_it_meets_the_schema_of_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, INFRA / "compose.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_airflow_has_every_command() -> None:
    commands = {name: service["command"] for name, service in airflow_services().items()}
    assert len(commands) == 7
    for command in commands.values():
        cli_parser.get_parser().parse_args(command.split())  # exits where it does not know a word


def test_gpu_tasks_have_a_worker_of_their_own() -> None:
    services = airflow_services()
    queues = {name: re.findall(r"--queues (\S+)", services[name]["command"]) for name in ("worker", "worker-gpu")}
    assert queues == {"worker": ["default"], "worker-gpu": ["gpu"]}
    gpu = services["worker-gpu"]
    assert (gpu["build"]["target"], services["worker"]["build"]["target"]) == ("cuda", "cpu")
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_every_secret_comes_from_the_environment_file_and_only_the_ui_is_published_on_loopback() -> None:
    text = (INFRA / "compose.yaml").read_text(encoding="utf-8")
    example = re.findall(r"^(\w+)=", (INFRA / "compose.env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+):\?\}", text)) == set(example)
    services = document("compose.yaml")["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api-server": ["127.0.0.1:8080:8080"]
    }
    for name, service in airflow_services().items():
        assert service["cap_drop"] == ["ALL"], name
