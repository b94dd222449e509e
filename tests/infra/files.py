"""The files of `infra/` as the tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import REPOSITORY

INFRA = REPOSITORY / "infra"


def documents(path: str) -> list[dict[str, Any]]:
    """All documents of a YAML file, by its path below `infra/`."""
    return list(yaml.safe_load_all((INFRA / path).read_text(encoding="utf-8")))


def document(path: str) -> dict[str, Any]:
    """The only document of a YAML file."""
    (only,) = documents(path)
    return only


def image_environment() -> dict[str, str]:
    """The variables that the Dockerfile sets."""
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV ")]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))


def airflow_services() -> dict[str, dict[str, Any]]:
    """The services of the compose file that run the image of this project."""
    services = document("compose.yaml")["services"]
    return {name: service for name, service in services.items() if service["image"].startswith("memorag:")}


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Every set of variables that a process of this project gets, with where it is written."""
    yield "Dockerfile", image_environment()
    for name, service in airflow_services().items():
        yield f"compose.yaml: {name}", service["environment"]
    values = document("helm/values.yaml")
    yield "helm/values.yaml", {item["name"]: item["value"] for item in values["env"]}
    for path in ("kubernetes/worker-pod.yaml", "kubernetes/gpu-pod.yaml"):
        for container in document(path)["spec"]["containers"]:
            yield path, {item["name"]: item["value"] for item in container.get("env", [])}
