"""A package that is not installed is named with the extra that brings it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from memorag_pipeline import open_version
from memorag_pipeline.errors import MissingDependencyError
from memorag_pipeline.machine import packages
from memorag_pipeline.machine.packages import PIPELINE, READER, named_packages, require_packages
from memorag_pipeline.runs.stage import Stage
from tests.conftest import REPOSITORY


def test_the_lists_are_those_of_the_extras() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        extra: [Requirement(line).name.replace("-", "_") for line in lines]
        for extra, lines in project["optional-dependencies"].items()
    }
    assert list(PIPELINE) == extras["pipeline"]
    assert [f"{name}_cpu" for name in READER] == extras["reader"]
    assert [*extras["cpu"], *extras["gpu"]] == ["memorag_pipeline", "faiss_cpu", "memorag_pipeline", "faiss_gpu"]


def test_a_failed_import_names_package_and_extra() -> None:
    needed = r"^duckdb is not installed here; pip install 'memorag-pipeline\[cpu\]', or \[gpu\]"
    with pytest.raises(MissingDependencyError, match=needed), named_packages():
        raise ModuleNotFoundError("No module named 'duckdb.typing'", name="duckdb.typing")
    with pytest.raises(ModuleNotFoundError, match="of_ours"), named_packages():
        raise ModuleNotFoundError("No module named 'of_ours'", name="of_ours")


def test_what_is_installed_is_not_missed() -> None:
    require_packages("numpy", "json")


def test_a_search_without_faiss_names_the_reader(animals_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    version = open_version(str(animals_store / "animals"))
    with pytest.raises(MissingDependencyError, match=r"faiss is not installed here; .*'memorag-pipeline\[reader\]'"):
        version.search("who?")


def test_a_stage_does_not_begin_without_what_any_stage_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("faiss", "xlrd") else name)
    with pytest.raises(MissingDependencyError, match=r"^faiss, xlrd are not installed here; .*\[cpu\]"):
        Stage("extract", "no.such.module:stage").call("pipeline")
