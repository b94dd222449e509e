"""`compute.kubernetes` as a pod: what the KubernetesExecutor would send to a cluster, checked without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from memorag_pipeline.specs.compute import KubernetesSpec

generator = pytest.importorskip("airflow.providers.cncf.kubernetes.pod_generator")
gpu_pod = pytest.importorskip("memorag_operators.gpu_pod")

TEMPLATE = Path(__file__).parents[2] / "infra" / "kubernetes" / "worker-pod.yaml"
EVERYTHING = {
    "gpus": 2,
    "image": "registry.example.org/memorag:0.1.0-cuda",
    "service_account": "memorag-gpu",
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"},
    "tolerations": ["nvidia.com/gpu=present:NoSchedule", "spot:NoExecute", "maintenance"],
    "resources": {"requests": {"cpu": 4, "memory": "32Gi"}, "limits": {"memory": "48Gi"}},
    "cache_volume": {"claim": "memorag-models"},
    "env": {"OMP_NUM_THREADS": "4"},
    "secrets": ["memorag-endpoint"],
}


def overriding(**keys: Any) -> dict[str, Any]:
    """The pod of a spec, as Kubernetes' own models write it."""
    return generator.PodGenerator.serialize_pod(gpu_pod.pod_override(KubernetesSpec.model_validate(keys)))


def rendered(**keys: Any) -> dict[str, Any]:
    """The pod that the KubernetesExecutor creates: the template, Airflow's own part, the spec's part over both."""
    pod = generator.PodGenerator.construct_pod(
        dag_id="topics_refresh",
        task_id="memorize",
        pod_id="memorize-1",
        try_number=1,
        kube_image="",
        date=None,
        args=["the", "task"],
        pod_override_object=gpu_pod.pod_override(KubernetesSpec.model_validate(keys)),
        base_worker_pod=generator.PodGenerator.deserialize_model_file(str(TEMPLATE)),
        namespace="airflow",
        scheduler_job_id="1",
        with_mutation_hook=True,
    )
    del pod.metadata.labels["airflow_version"]
    return generator.PodGenerator.serialize_pod(pod)


def test_the_pod_of_a_gpu_task_is_the_one_on_record() -> None:
    assert rendered(**EVERYTHING) == yaml.safe_load(Path(__file__).with_name("gpu_pod.yaml").read_text())


@pytest.mark.parametrize("volume", [{"claim": "memorag-models"}, {"host_path": "/mnt/models"}], ids=str)
def test_kubernetes_models_know_every_key_of_the_pod(volume: dict[str, str]) -> None:
    keys = {**EVERYTHING, "cache_volume": volume}
    assert overriding(**keys) == gpu_pod._manifest(KubernetesSpec.model_validate(keys))


def test_the_shipped_template_holds_nothing_that_kubernetes_does_not_know() -> None:
    pod = generator.PodGenerator.deserialize_model_file(str(TEMPLATE))
    assert generator.PodGenerator.serialize_pod(pod) == yaml.safe_load(TEMPLATE.read_text())


def test_what_the_spec_leaves_empty_is_left_to_the_template() -> None:
    gpu = {"nvidia.com/gpu": "1"}
    container = {"name": "base", "resources": {"requests": gpu, "limits": gpu}}
    assert overriding() == {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}}
    assert overriding(gpus=0)["spec"] == {"containers": [{"name": "base"}]}
    template, pod = yaml.safe_load(TEMPLATE.read_text())["spec"], rendered(gpus=0)["spec"]
    (expected,), (found,) = template["containers"], pod["containers"]
    assert {**pod, "containers": [found | expected]} == {**template, "containers": [found]}
    assert found["resources"] == expected["resources"]


def test_the_cache_may_be_a_folder_of_the_node_and_its_variables_may_be_set_otherwise() -> None:
    volume = {"host_path": "/mnt/models", "path": "/models/"}
    spec = overriding(cache_volume=volume, env={"HF_HOME": "/other", "EMPTY": ""})["spec"]
    assert spec["volumes"][0]["hostPath"] == {"path": "/mnt/models", "type": "Directory"}
    assert spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/models/"
    assert {variable["name"]: variable["value"] for variable in spec["containers"][0]["env"]} == {
        "MEMORAG_CACHE": "/models/memorag",
        "HF_HOME": "/other",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("taint", "toleration"),
    [
        ("gpu", {"key": "gpu", "operator": "Exists"}),
        ("gpu=", {"key": "gpu", "operator": "Equal", "value": ""}),
        ("gpu=a100", {"key": "gpu", "operator": "Equal", "value": "a100"}),
        ("gpu:NoExecute", {"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
        (
            "example.org/gpu=a100:PreferNoSchedule",
            {"key": "example.org/gpu", "operator": "Equal", "value": "a100", "effect": "PreferNoSchedule"},
        ),
    ],
)
def test_a_taint_is_borne_as_kubectl_writes_it(taint: str, toleration: dict[str, str]) -> None:
    assert overriding(tolerations=[taint])["spec"]["tolerations"] == [toleration]
