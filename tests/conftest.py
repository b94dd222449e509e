"""Shared fixtures. What tests write stays in the repository's `.memorag/` folder and in temporary folders."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import tiers

REPOSITORY = Path(__file__).parents[1]


# A fresh Airflow home for each test process, set before anything imports Airflow.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="memorag-test-airflow-")
atexit.register(shutil.rmtree, _AIRFLOW_HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": _AIRFLOW_HOME,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_AIRFLOW_HOME}/airflow.db",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{_AIRFLOW_HOME}/logs",
    "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}

# Before anything imports a model library. Tests that run side by side share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MEMORAG_CACHE", str(REPOSITORY / ".memorag" / "cache"))
os.environ.setdefault("MEMORAG_STORE_WAIT", "0")  # outages are made on purpose
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

if find_spec("hypothesis") is not None:
    from hypothesis import settings

    # Seconds say nothing about the code here: tests run side by side.
    settings.register_profile("side by side", deadline=None)
    settings.load_profile("side by side")

# Fixtures, and the packages without which they are left out, as where only the engine is tried on a GPU.
_STORE = ("fsspec", "pyarrow")
_FIXTURES = {
    "airflow": ("yaml",),
    "changing_corpus": _STORE,
    "corpus": (),
    "older_store": (),
    "postgres": ("psycopg2",),
    "reading_processes": _STORE,
    "redis": (),
    "reports": (),
    "s3": ("s3fs",),
    "short_answers": _STORE,
    "statsd": (),
    "tiny_models": (),
}
pytest_plugins = [f"tests.fixtures.{name}" for name, packages in _FIXTURES.items() if all(map(find_spec, packages))]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run what needs neither models, servers nor Airflow")
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds that a test may take; without pytest-timeout any number")


def pytest_configure(config: pytest.Config) -> None:
    tiers.configure(config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return tiers.is_left_out(collection_path, config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tiers.mark(items)
    tiers.order(items)
    tiers.deselect(config, items)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look at these millions of objects again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if told := tiers.summary(config):
        terminalreporter.write_line(told)
