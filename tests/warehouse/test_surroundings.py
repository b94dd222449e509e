"""A load leaves nothing behind: no home folder, no settings, no Airflow, no message to anyone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from memorag_pipeline.specs.jobs import WarehouseSpec

REPOSITORY = Path(__file__).parents[2]

CODE = """
import sys

def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        print(event, arguments[1:] if event == "socket.connect" else arguments[0])

sys.addaudithook(watch)
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from tests.warehouse.answer_rows import KEY, answers

warehouse = open_warehouse(WarehouseSpec.model_validate_json(sys.argv[1]))
warehouse.merge(answers(2), "answers", KEY)
assert warehouse.query("SELECT * FROM kb.answers").num_rows == 2
assert "airflow" not in sys.modules
"""


def test_a_load_stays_in_its_database(spec: WarehouseSpec, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("home", "working", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    settings = folders["working"] / ".dlt"
    settings.mkdir()
    (settings / "config.toml").write_text("[runtime]\nlog_level = 'no such level'\n", encoding="utf-8")
    (settings / "secrets.toml").write_text("[destination.postgres.credentials]\nhost = 'elsewhere'\n", encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "RUNTIME__DLTHUB_TELEMETRY": "true",
    }
    shared_state = Path("/var/dlt")
    there_before = shared_state.exists()
    done = subprocess.run(
        [sys.executable, "-c", CODE, spec.model_dump_json()],
        cwd=folders["working"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")  # no connection but the driver's own, which Python does not see
    assert shared_state.exists() == there_before
    left = {path.relative_to(tmp_path) for folder in folders.values() for path in folder.rglob("*") if path.is_file()}
    assert left == {Path("working/.dlt/config.toml"), Path("working/.dlt/secrets.toml")}
    assert not list(folders["home"].iterdir())
    assert not list(folders["temporary"].iterdir())
