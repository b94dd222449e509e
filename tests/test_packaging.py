"""The wheel holds what it should, runs with the packages that it declares, and the library works without Airflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
SPEC = """\
corpus: topics
source: {uris: [source]}
store: {uri: store}
memory: {model: package:smollm2-135m-instruct}
embedding: {model: package:all-minilm-l6-v2}
"""
PARSE_DAGS = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({folder!r})
assert not bag.import_errors, bag.import_errors
print(*sorted(bag.dags))
"""
WITHOUT_AIRFLOW = """
import sys
sys.modules["airflow"] = None
import memorag_pipeline
from memorag_pipeline.cli.app import main
sys.argv = ["memorag", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools would put stale files of an earlier build into it."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("memorag_pipeline", "operators"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    run([sys.executable, "-m", "build", "--wheel", "--outdir", "dist"], cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; return its stdout."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_and_prompt_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {"memorag_pipeline": "memorag_pipeline", "operators": "memorag_operators"}
    expected = {
        str(Path(package) / path.relative_to(REPOSITORY / folder))
        for folder, package in packages.items()
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".j2", ".safetensors", ".md") or path.name == "py.typed"
    }
    assert "memorag_pipeline/prompts/en/answer.yaml" in expected
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_the_wheel_names_its_entry_points(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    text = archive.read(entry_points).decode()
    assert "memorag = memorag_pipeline.cli.app:main" in text
    assert re.search(r"\[apache_airflow_provider\]\s+provider_info = memorag_operators", text)


def test_airflow_and_faiss_are_extras_and_never_both_builds_of_faiss(wheel: Path) -> None:
    found = (re.fullmatch(r"([\w.-]+)[^;]*(?:; extra == .(\w+).)?", line) for line in requirements(wheel))
    required = [(match[1], match[2] or "") for match in found if match]
    extras_of = {name: {extra for other, extra in required if other.lower() == name} for name, _ in required}
    assert extras_of["apache-airflow"] == {"airflow"}
    assert extras_of["faiss-cpu"] == {"cpu", "reader"}
    assert extras_of["faiss-gpu"] == {"gpu"}
    assert extras_of["torch"] == {""}
    assert extras_of["duckdb"] == {"pipeline"}
    assert extras_of["memorag-pipeline"] == {"airflow", "cpu", "gpu"}


def test_the_library_and_the_command_work_without_airflow(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text(SPEC, encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT_AIRFLOW, "validate", "corpus.yaml"]
    assert "corpus.yaml is right" in run(command, cwd=tmp_path)


def test_the_wheel_runs_with_the_packages_that_it_declares_and_no_other(wheel: Path, tmp_path: Path) -> None:
    """Their files are links to those of this environment: what has to be there, not how long it takes to unpack it."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    for name in declared(wheel, {"cpu", "airflow"}):
        link_files(name, site)
    install(wheel, environment, tmp_path)
    check_installation(environment, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_wheel_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """A full installation from the package index (about 2 GB), taken away at the end."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    try:
        # Without compiling, which would take half of the time and is not under test.
        run([python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[cpu,airflow]"], cwd=tmp_path)
        check_installation(environment, tmp_path)
    finally:
        shutil.rmtree(environment, ignore_errors=True)


def check_installation(environment: Path, folder: Path) -> None:
    """The command runs, the requirements agree, and the DAG files parse."""
    python = str(environment / "bin" / "python")
    assert "Exit codes" in run([str(environment / "bin" / "memorag"), "--help"], cwd=folder)
    run([sys.executable, "-m", "pip", "--python", python, "check"], cwd=folder)
    dags = folder / "dags"
    shutil.copytree(REPOSITORY / "dags", dags)
    airflow = {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    airflow["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{folder / 'airflow' / 'airflow.db'}"
    found = run([python, "-c", PARSE_DAGS.format(folder=str(dags))], cwd=folder, **airflow)
    assert found.split()[-3:] == [f"python_reference_{name}" for name in ("backfill", "faq", "refresh")]


def install(wheel: Path, environment: Path, folder: Path) -> None:
    """Install the wheel itself."""
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=folder)


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires, with its extras."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    return re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.M)


def declared(wheel: Path, extras: set[str]) -> set[str]:
    """Names of the distributions that a wheel requires with these extras, and of those that they require in turn."""
    seen: set[tuple[str, str]] = set()
    left = list(needed(requirements(wheel), extras))
    while left:
        requirement = left.pop()
        asked = {(requirement.name, extra) for extra in {"", *requirement.extras}} - seen
        if asked:
            seen |= asked
            own = requirement.name == "memorag-pipeline"
            lines = requirements(wheel) if own else distribution(requirement.name).requires or []
            left += needed(lines, {extra for _, extra in asked})
    return {name for name, _ in seen} - {"memorag-pipeline"}


def needed(lines: list[str], extras: set[str]) -> Iterator[Requirement]:
    """The requirements among `lines` that hold here with these extras."""
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def link_files(name: str, site: Path) -> None:
    """Make a distribution of this environment one of another, by links to its files in `site-packages`."""
    for file in distribution(name).files or []:
        if ".." not in file.parts:
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.symlink_to(file.locate())
