"""Section `compute`: where GPU units run, and how many units one task takes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from pydantic import Field

from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import (
    AbsolutePath,
    ExtendedResource,
    Image,
    Labels,
    ObjectName,
    Quantities,
    Taint,
    VariableName,
)


def one_cache_volume(claim: str | None, host_path: str | None) -> str | None:
    if claim is not None and host_path is not None:
        return "claim and host_path are both given"
    return "neither claim nor host_path is given" if claim is None and host_path is None else None


def gpus_have_one_place(resource: str, requests: dict[str, str], limits: dict[str, str]) -> str | None:
    return "is also among the resources" if resource in (requests | limits) else None


def requests_fit_limits(requests: dict[str, str], limits: dict[str, str]) -> str | None:
    for resource, request in requests.items():
        limit = limits.get(resource, request)
        if _amount(request) > _amount(limit):
            return f"has {resource} {request}, which is more than the limit of {limit}"
    return None


def _amount(quantity: str) -> Decimal:
    """The value of a quantity of Kubernetes: 500m is 0.5, 1Ki is 1024."""
    number = quantity.rstrip("mkKMGTPEi")
    unit = quantity[len(number) :]
    if unit == "m":
        return Decimal(number) / 1000
    power = "kMGTPE".index(unit[0].replace("K", "k")) + 1 if unit else 0
    return Decimal(number) * Decimal(1024 if unit.endswith("i") else 1000) ** power


def env_holds_no_secret(env: dict[str, str]) -> str | None:
    secret = next((name for name in env if re.search("(SECRET|PASSWORD|TOKEN|KEY)$", name)), None)
    return f"has {secret}, which Airflow would store and show" if secret else None


def pod_has_use(kubernetes: Any, executor: str | None) -> str | None:
    if kubernetes is not None and executor in ("LocalExecutor", "CeleryExecutor"):
        return f"has no use for the {executor}, which makes no pods"
    return None


class CacheVolumeSpec(Section):
    """The volume of a pod that keeps models and memories for the pods after it."""

    rules = (Rule(("claim", "host_path"), one_cache_volume, "give exactly one of the two"),)

    claim: ObjectName | None = Field(default=None, description="PersistentVolumeClaim in the namespace of the pods.")
    host_path: AbsolutePath | None = Field(default=None, description="Folder of the node; the pod's user must own it.")
    path: AbsolutePath = Field(
        default="/var/cache/memorag", description="Where it is mounted; MEMORAG_CACHE and HF_HOME point into it."
    )


class ResourcesSpec(Section):
    """Requests and limits of a pod by resource, instead of the template's. GPUs are given by `gpus`."""

    rules = (Rule(("requests", "limits"), requests_fit_limits, "raise the limit or ask for less"),)

    requests: Quantities = Field(default={}, description="The pod's requests, e.g. {cpu: 4, memory: 32Gi}.")
    limits: Quantities = Field(default={}, description="The pod's limits, e.g. {memory: 32Gi}.")


class KubernetesSpec(Section):
    """The pod of a GPU task under the KubernetesExecutor. The pod template provides what is empty."""

    rules = (
        Rule(
            ("gpu_resource", "resources.requests", "resources.limits"),
            gpus_have_one_place,
            "give it only in gpus",
        ),
        Rule(("env",), env_holds_no_secret, "put it in a Kubernetes Secret and name that in secrets"),
    )

    gpus: int = Field(default=1, ge=0, description="GPUs of a pod; 0: none.")
    gpu_resource: ExtendedResource = Field(default="nvidia.com/gpu", description="The resource that a GPU is.")
    image: Image | None = Field(default=None, description="Image with this package, Airflow and the GPU libraries.")
    service_account: ObjectName | None = Field(default=None, description="Service account that the pod runs as.")
    node_selector: Labels = Field(default={}, description="Labels that the node must have.")
    tolerations: list[Taint] = Field(
        default=[], description="Taints of nodes that the pod tolerates, as key, key=value or key=value:effect."
    )
    resources: ResourcesSpec = ResourcesSpec()
    cache_volume: CacheVolumeSpec | None = Field(default=None, description="Volume that keeps models between pods.")
    env: dict[VariableName, str] = Field(default={}, description="Environment variables; shown in Airflow.")
    secrets: list[ObjectName] = Field(
        default=[], description="Kubernetes Secrets whose entries become environment variables."
    )


class ComputeSpec(Section):
    """Where GPU units run. Empty values leave the choice to the Airflow deployment."""

    rules = (Rule(("kubernetes", "executor"), pod_has_use, "leave one of the two out"),)

    queue: str | None = Field(default=None, description="Celery queue of the GPU workers.")
    pool: str = Field(default="default_pool", description="Airflow pool that limits how many GPU tasks run at once.")
    pool_slots: int = Field(default=1, ge=1, description="Slots of the pool that one GPU task takes.")
    executor: str | None = Field(default=None, description="Airflow executor of GPU tasks, e.g. KubernetesExecutor.")
    pod_template: str | None = Field(default=None, description="Pod template file for KubernetesExecutor.")
    kubernetes: KubernetesSpec | None = Field(default=None, description="Pod of GPU tasks for KubernetesExecutor.")
    units_per_task: int = Field(default=8, ge=1, description="Units of one task, which loads the model once.")
    extract_processes: int | None = Field(
        default=None,
        ge=1,
        description="Processes in one extract task that read documents; by default one per core.",
    )
    retries: int = Field(default=2, ge=0, description="Retries of each task; finished units are not done again.")
    gpu_hour_price: float | None = Field(
        default=None, ge=0, description="Price of an hour of a GPU task, in any currency; for forecasts and alerts."
    )
