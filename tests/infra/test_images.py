"""The Dockerfile without a Docker engine: hadolint, what it copies, and the versions that it installs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tests.infra.files import INFRA

TEXT = (INFRA / "Dockerfile").read_text(encoding="utf-8")
OWN = "memorag-pipeline[pipeline]"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_hadolint_finds_nothing() -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", INFRA / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_targets_run_without_root_from_pinned_images() -> None:
    stages = {name for _, name in re.findall(r"^FROM (\S+) AS (\w+)$", TEXT, re.MULTILINE)}
    assert stages == {"wheel", "base", "cpu", "cuda"}
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)$", TEXT, re.MULTILINE)
    assert images and all(re.search(r":\S*\d+\.\d+", image) for image in images)
    assert re.findall(r"^USER (\d+)$", TEXT, re.MULTILINE)[-1] == "50000"


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [word for line in re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE) for word in line.split()]
    sources += re.findall(r"type=bind,source=([^,]+)", TEXT)
    sent = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert len(sources) > 5
    for source in sources:
        assert list(REPOSITORY.glob(source)), source
        assert any(fnmatch(source, pattern) for pattern in sent), source


def test_installed_versions_are_those_that_the_project_takes() -> None:
    lines = (INFRA / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    assert OWN in extras["airflow"]
    wanted = [*PROJECT["dependencies"], *(r for e in ("airflow", "celery", "pipeline") for r in extras[e])]
    for text in wanted:
        if text == OWN:
            continue
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"make requirements.txt anew for {text}"
    for extra, package in (("cpu", "faiss-cpu"), ("gpu", "faiss-gpu")):
        own, text = extras[extra]
        assert own == OWN and text.startswith(package) and f"'{text}'" in TEXT


def test_the_image_has_the_airflow_of_the_requirements() -> None:
    (version,) = re.findall(r"^apache-airflow==(.+)$", (INFRA / "requirements.txt").read_text(), re.MULTILINE)
    assert f"apache/airflow:slim-{version}-python3.11\n" in TEXT
    assert f"airflowVersion: {version}\n" in (INFRA / "helm" / "values.yaml").read_text()
