"""The manifests against Kubernetes' own models, and rights against what the executor calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.infra.files import INFRA, document, documents
from tests.operators.test_gpu_pod import rendered

client = pytest.importorskip("kubernetes.client")
executor = pytest.importorskip("airflow.providers.cncf.kubernetes.executors.kubernetes_executor")

MANIFESTS = [
    (path.name, item)
    for path in sorted((INFRA / "kubernetes").iterdir())
    for item in documents(f"kubernetes/{path.name}")
]
MODELS = {
    "Pod": "V1Pod",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "ServiceAccount": "V1ServiceAccount",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "NetworkPolicy": "V1NetworkPolicy",
}
VERBS = {"read": "get", "create": "create", "list": "list", "patch": "patch", "delete": "delete"}


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for _, item in MANIFESTS if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize(
    ("file", "manifest"), MANIFESTS, ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_the_models_know_every_key(file: str, manifest: dict[str, Any]) -> None:
    api = client.ApiClient()
    model = api._ApiClient__deserialize(manifest, MODELS[manifest["kind"]])
    assert api.sanitize_for_serialization(model) == manifest


def test_the_scheduler_may_do_what_the_executor_calls_and_no_more() -> None:
    folder = Path(executor.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("kubernetes_executor*.py"))
    calls = set(re.findall(r"\.(\w+)_namespaced_pod\b(?!_log)", text))
    assert calls <= VERBS.keys()
    (rule,) = named("Role", "memorag-pods")["rules"]
    assert rule["resources"] == ["pods"]
    assert set(rule["verbs"]) == {VERBS[call] for call in calls} | {"watch"}
    assert "watcher.stream(" in text or "Watch(" in text


def test_the_api_server_may_read_what_logs_are_read_with() -> None:
    text = Path(executor.__file__).read_text(encoding="utf-8")
    calls = set(re.findall(r"(?<!\w)client\.(\w+_namespaced_pod\w*)", text))
    assert calls == {"list_namespaced_pod", "read_namespaced_pod_log"}
    rules = named("Role", "memorag-pod-logs")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [(["pods"], ["list"]), (["pods/log"], ["get"])]


def test_tasks_have_no_rights_and_no_token() -> None:
    bound = {subject["name"] for _, item in MANIFESTS if item["kind"] == "RoleBinding" for subject in item["subjects"]}
    assert bound == {"memorag-scheduler", "memorag-api-server"}
    assert named("ServiceAccount", "memorag-worker")["automountServiceAccountToken"] is False
    for name in ("memorag-worker", "memorag-gpu-worker"):
        spec = named("Pod", name)["spec"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("memorag-worker", False)
        assert spec["securityContext"]["runAsNonRoot"] is True


def test_the_gpu_template_is_the_other_one_with_a_gpu() -> None:
    plain, gpu = (named("Pod", name)["spec"] for name in ("memorag-worker", "memorag-gpu-worker"))
    assert gpu.keys() - plain.keys() == {"tolerations"}
    same = set(plain) - {"containers", "volumes"}
    assert {key: gpu[key] for key in same} == {key: plain[key] for key in same}
    assert all(volume in gpu["volumes"] for volume in plain["volumes"])
    base = gpu["containers"][0]
    assert base["envFrom"] == plain["containers"][0]["envFrom"]
    assert base["resources"]["limits"]["nvidia.com/gpu"] == base["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_the_network_policy_selects_the_pods_of_tasks() -> None:
    labels = rendered()["metadata"]["labels"]
    selector = named("NetworkPolicy", "memorag-tasks")["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= labels.items()


def test_names_in_the_values_of_the_chart_are_those_of_the_manifests() -> None:
    values = document("helm/values.yaml")
    accounts = {
        values["workers"]["kubernetes"]["serviceAccount"]["name"],
        values["scheduler"]["serviceAccount"]["name"],
        values["apiServer"]["serviceAccount"]["name"],
    }
    assert accounts == {item["metadata"]["name"] for _, item in MANIFESTS if item["kind"] == "ServiceAccount"}
    maps = {volume["configMap"]["name"] for volume in values["volumes"]}
    pod = named("Pod", "memorag-worker")["spec"]
    assert maps == {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    secrets = {item["secretRef"]["name"] for item in pod["containers"][0]["envFrom"]}
    assert set(re.findall(r"name: (\S+)", values["extraEnvFrom"])) == secrets
