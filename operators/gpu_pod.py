"""The pod of a GPU task under the KubernetesExecutor, from the section `compute.kubernetes` of a spec.

In:  a `KubernetesSpec`.
Out: a `V1Pod` for the `pod_override` of a task: only what the spec says. Airflow merges it into the pod template.
Wrong: invalid values are refused with the spec, a missing Kubernetes provider by `spec_folder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memorag_pipeline.specs.compute import CacheVolumeSpec, KubernetesSpec

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

_VOLUME = "memorag-cache"


def pod_override(spec: KubernetesSpec) -> V1Pod:
    """The pod as the Kubernetes model that Airflow stores with the task."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    return PodGenerator.deserialize_model_dict(_manifest(spec))


def _manifest(spec: KubernetesSpec) -> dict[str, Any]:
    """The pod in the form of its YAML. Airflow's task runs in the container `base`, which must be the first."""
    gpus = {spec.gpu_resource: str(spec.gpus)} if spec.gpus else {}
    container: dict[str, Any] = {
        "name": "base",
        "image": spec.image,
        "resources": {"requests": {**spec.resources.requests, **gpus}, "limits": {**spec.resources.limits, **gpus}},
        "env": [{"name": name, "value": value} for name, value in (_cache_variables(spec) | spec.env).items()],
        "envFrom": [{"secretRef": {"name": name}} for name in spec.secrets],
    }
    pod: dict[str, Any] = {
        "serviceAccountName": spec.service_account,
        "nodeSelector": spec.node_selector,
        "tolerations": [_toleration(taint) for taint in spec.tolerations],
        "containers": [container],
    }
    if spec.cache_volume:
        container["volumeMounts"] = [{"name": _VOLUME, "mountPath": spec.cache_volume.path}]
        pod["volumes"] = [{"name": _VOLUME, **_volume(spec.cache_volume)}]
    return {"apiVersion": "v1", "kind": "Pod", "spec": _given(pod)}


def _cache_variables(spec: KubernetesSpec) -> dict[str, str]:
    if spec.cache_volume is None:
        return {}
    path = spec.cache_volume.path.rstrip("/")
    return {"MEMORAG_CACHE": f"{path}/memorag", "HF_HOME": f"{path}/huggingface"}


def _volume(volume: CacheVolumeSpec) -> dict[str, Any]:
    if volume.claim:
        return {"persistentVolumeClaim": {"claimName": volume.claim}}
    return {"hostPath": {"path": volume.host_path, "type": "Directory"}}


def _toleration(taint: str) -> dict[str, str]:
    """`key`, `key=value`, `key:effect` or `key=value:effect`, as `kubectl taint` writes them; no effect: every one."""
    taint, _, effect = taint.partition(":")
    key, equals, value = taint.partition("=")
    operator = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **operator, **({"effect": effect} if effect else {})}


def _given(value: Any) -> Any:
    """Without what is empty, at any depth: Airflow takes the template's value where the override has none."""
    if isinstance(value, dict):
        return {name: given for name, item in value.items() if (given := _given(item)) not in (None, {}, [])}
    return [_given(item) for item in value] if isinstance(value, list) else value
