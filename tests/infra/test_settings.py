"""Every variable, setting and path in `infra/` is one that the code, Airflow or an installed library reads."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.infra.files import INFRA, document, environments, image_environment

conf = pytest.importorskip("airflow.configuration").conf

# Variables of libraries, each with the module that reads it.
LIBRARIES = {
    "AWS_ACCESS_KEY_ID": "botocore.credentials",
    "AWS_SECRET_ACCESS_KEY": "botocore.credentials",
    "AWS_ENDPOINT_URL": "botocore.configprovider",
    "HF_HOME": "huggingface_hub.constants",
}
CONTAINER_TOOLKIT = {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}  # read outside of the container


def settings() -> Iterator[tuple[str, str, str]]:
    """Where, section and key of each of Airflow's settings."""
    page = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    written = [("deploy.md", dict.fromkeys(re.findall(r"AIRFLOW__[A-Z_]+[A-Z]", page), "")), *environments()]
    for where, variables in written:
        for name in variables:
            if found := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name):
                yield where, found[1].lower(), found[2].lower()
    for section, keys in document("helm/values.yaml")["config"].items():
        for key in keys:
            yield "helm/values.yaml", section, key


def test_airflow_knows_every_setting() -> None:
    found = list(settings())
    known = conf.configuration_description
    assert len(found) > 20
    assert [(w, s, k) for w, s, k in found if k not in known.get(s, {"options": {}})["options"]] == []


def test_the_code_reads_every_variable() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("memorag_pipeline", "operators")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    read = set(re.findall(r"""environ(?:\.get\(|\[)["'](\w+)["']""", sources))
    for where, variables in environments():
        ours = {name for name in variables if name.startswith("MEMORAG_")}
        assert ours <= read, where
        rest = {name for name in variables if not name.startswith(("MEMORAG_", "AIRFLOW__"))}
        assert rest <= LIBRARIES.keys() | CONTAINER_TOOLKIT, where
    for name, module in LIBRARIES.items():
        spec = importlib.util.find_spec(module)
        assert spec and spec.origin
        text = Path(spec.origin).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", text), name


def test_paths_of_pods_and_services_are_those_of_the_image() -> None:
    image = image_environment()
    folder = image["MEMORAG_CACHE"].rpartition("/")[0]
    pod = document("kubernetes/gpu-pod.yaml")["spec"]["containers"][0]
    variables = {item["name"]: item["value"] for item in pod["env"]}
    assert variables == {name: image[name] for name in ("MEMORAG_CACHE", "HF_HOME")}
    mounts = {mount["mountPath"] for mount in pod["volumeMounts"]}
    assert {folder, image["MEMORAG_SPECS"]} <= mounts
    values = document("helm/values.yaml")
    assert [mount["mountPath"] for mount in values["volumeMounts"]] == [image["MEMORAG_SPECS"]]
    worker = document("compose.yaml")["services"]["worker"]
    assert {volume.split(":")[-2 if volume.endswith(":ro") else -1] for volume in worker["volumes"]} == {
        image["MEMORAG_SPECS"],
        folder,
        "/opt/airflow/logs",
    }
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    assert f"VOLUME {folder}\n" in text


def test_yaml_is_tidy() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", INFRA / ".yamllint.yaml", INFRA]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
