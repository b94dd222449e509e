"""`memorag airflow setup` on a migrated metadata database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
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
    assert CliRunner().invoke(app, ["airflow", "setup", str(spec_folder)]).exit_code == 3
