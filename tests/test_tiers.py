"""What `make test-fast` leaves out: by what tests import, by the fixtures that they use, by marks."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import PathFinder

import pytest

from tests.conftest import REPOSITORY
from tests.tiers import LIBRARIES, NEEDS, _Without


def test_the_fast_tier_finds_every_module_but_those_of_models_and_airflow() -> None:
    assert [name for name in LIBRARIES if _Without.find_spec(name) is not None] == []
    for name in ("numpy", "pyarrow", "memorag_pipeline"):
        assert (_Without.find_spec(name) is None) == (PathFinder.find_spec(name) is None)


def test_every_need_is_a_marker(pytestconfig: pytest.Config) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert set(NEEDS) <= markers


def test_needs_are_told_by_fixtures_imports_and_marks() -> None:
    """On tests that use an S3 server, Airflow and torch."""
    asked = ["tests/storage/test_contract.py", "tests/operators", "tests/generators"]
    command = [sys.executable, "-m", "pytest", "--fast", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    run = subprocess.run([*command, *asked], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    collected = [line for line in run.stdout.splitlines() if "::" in line]
    assert "tests/storage/test_contract.py::test_an_empty_object_is_refused[memory]" in collected
    assert not any("[s3" in line or "tests/operators" in line or "test_local" in line for line in collected)
    (told,) = [line for line in run.stdout.splitlines() if line.startswith("fast tier: left out")]
    assert "tests/generators/test_local.py" in told
