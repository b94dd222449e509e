"""Pools: `memorag airflow setup`, and the report of a missing one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

pytest.importorskip("airflow")


def setup(folder: Path, *options: str) -> list[tuple[str, int, bool]]:
    result = CliRunner().invoke(app, ["airflow", "setup", str(folder), *options, "--json"])
    assert result.exit_code == 0, result.output
    return [(row["pool"], row["slots"], row["created"]) for row in json.loads(result.stdout)]


def test_pools_of_the_specs_are_created_once_and_kept(
    airflow_home: Path, source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, spec_folder: Path
) -> None:
    write_spec(make_spec(source, compute={"pool": "gpu_a", "pool_slots": 2}))
    write_spec(make_spec(source, corpus="other"), "other")
    refused = CliRunner().invoke(app, ["airflow", "setup", str(spec_folder)])
    assert refused.exit_code == 3 and "more than the 1 slots of pool gpu_a" in " ".join(refused.output.split())
    assert setup(spec_folder, "--slots", "4") == [("default_pool", 128, False), ("gpu_a", 4, True)]
    assert setup(spec_folder, "--slots", "9") == [("default_pool", 128, False), ("gpu_a", 4, False)]
    write_spec("corpus: [", "broken")
    write_spec(make_spec(source, corpus="third", compute={"pool": "gpu_b"}), "third")
    result = CliRunner().invoke(app, ["airflow", "setup", str(spec_folder)])
    assert result.exit_code == 3 and "broken.yaml" in result.output
    (spec_folder / "broken.yaml").unlink()
    assert ("gpu_b", 1, False) in setup(spec_folder)  # one bad spec kept no other from its pool


def test_a_missing_pool_is_told_with_the_dag_and_on_the_pages_of_the_corpus(
    airflow_home: Path,
    source: Path,
    make_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    spec_folder: Path,
    load_dags: Callable[[], Any],
    pages: Any,
) -> None:
    job = {"questions": {"uri": "/questions.jsonl"}, "warehouse": {"database": "/warehouse.duckdb"}}
    write_spec(make_spec(source, compute={"pool": "gpu_c"}, jobs={"faq": job}))
    write_spec(make_spec(source, corpus="other"), "other")
    dags = load_dags().dags
    for name in ("topics_refresh", "topics_faq"):
        assert "pool `gpu_c`" in dags[name].doc_md and "memorag airflow setup" in dags[name].doc_md
    assert "memorag airflow setup" not in dags["other_refresh"].doc_md
    for page in ("/", "/topics/"):
        assert "There is no pool gpu_c in this Airflow." in pages.get(page).text
    assert "There is no pool" not in pages.get("/other/").text
    setup(spec_folder)
    for page in ("/", "/topics/"):
        assert "There is no pool" not in pages.get(page).text


def test_outside_of_a_deployment_setup_says_so_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    specs, home = tmp_path / "specs", tmp_path / "home"
    specs.mkdir()
    home.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    database = f"sqlite:///{tmp_path / 'elsewhere' / 'airflow.db'}"
    for settings, message in (
        ({}, "there is no Airflow deployment here: no"),
        ({"AIRFLOW_HOME": str(home / "airflow")}, "there is no Airflow deployment here: no"),
        (
            {"AIRFLOW_HOME": str(tmp_path / "made"), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database},
            f"metadata database {database} cannot be used (there is no such file)",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", "from memorag_pipeline.cli.app import main; main()", "airflow", "setup", str(specs)],
            env={**plain, "HOME": str(home), **settings},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 4
        assert len(done.stderr.splitlines()) == 1 and message in done.stderr
        assert list(home.iterdir()) == []
    assert not (tmp_path / "elsewhere").exists()


def test_a_database_that_was_not_migrated_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import settings

    (tmp_path / "airflow.db").touch()
    database = create_engine(f"sqlite:///{tmp_path / 'airflow.db'}")
    monkeypatch.setattr(settings, "Session", sessionmaker(database))
    result = CliRunner().invoke(app, ["airflow", "setup", str(tmp_path)])
    assert result.exit_code == 4
    (line,) = result.output.strip().splitlines()
    assert "(no such table: slot_pool)" in line and "airflow db migrate" in line
