"""What is wrong in `compute.kubernetes` is refused with its key before any pod is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.specs.corpus import read_spec
from tests.specs.test_corpus import changed, problems_of

KUBERNETES = "compute.kubernetes"
WRONG = {
    "half a GPU": ({"gpus": 0.5}, "gpus", "a whole number"),
    "fewer than no GPUs": ({"gpus": -1}, "gpus", "greater than or equal to 0"),
    "GPU that is no device": ({"gpu_resource": "gpu"}, "gpu_resource", "vendor/name"),
    "image with blanks": ({"image": "mem orag:1"}, "image", "registry/name:tag"),
    "service account in capitals": ({"service_account": "Worker"}, "service_account", "a-z, 0-9"),
    "key that is no label": ({"node_selector": {"-gpu": "h100"}}, "node_selector.-gpu", "is not the key of a label"),
    "value that is no label": ({"node_selector": {"gpu": "an h100"}}, "node_selector.gpu", "at most 63 of"),
    "label that YAML reads as truth": ({"node_selector": {"gpu": True}}, "node_selector.gpu", "put it in quotes"),
    "effect that Kubernetes has not": ({"tolerations": ["gpu:NoWork"]}, "tolerations.0", "key=value:effect"),
    "toleration as a mapping": ({"tolerations": [{"key": "gpu"}]}, "tolerations.0", "a text"),
    "memory with a unit it has not": (
        {"resources": {"limits": {"memory": "32GB"}}},
        "resources.limits.memory",
        "32Gi",
    ),
    "more CPUs than the limit": (
        {"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}}},
        "resources.requests",
        "more than the limit of 1",
    ),
    "more memory than the limit": (
        {"resources": {"requests": {"memory": "2Ki"}, "limits": {"memory": "2k"}}},
        "resources.requests",
        "more than the limit of 2k",
    ),
    "GPUs in two places": ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, "gpu_resource", "give it only in gpus"),
    "no volume": ({"cache_volume": {}}, "cache_volume.claim", "neither claim nor host_path"),
    "two volumes": ({"cache_volume": {"claim": "a", "host_path": "/a"}}, "cache_volume.claim", "both given"),
    "relative path": ({"cache_volume": {"claim": "a", "path": "cache"}}, "cache_volume.path", "start it with /"),
    "secret in the environment": ({"env": {"HF_TOKEN": "hf_1234"}}, "env", "name that in secrets"),
    "variable in lower case": ({"env": {"threads": "4"}}, "env.threads", "A-Z"),
    "unknown key": ({"gpu": 1}, "gpu", "did you mean gpus?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_with_its_key_and_the_fix(name: str, tmp_path: Path) -> None:
    values, key, fix = WRONG[name]
    (problem,) = problems_of(written(tmp_path, kubernetes=values))
    assert problem.key == f"{KUBERNETES}.{key}"
    assert fix in str(problem)
    assert "hf_1234" not in str(problem)


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor"])
def test_a_pod_for_an_executor_that_makes_none_is_refused(executor: str, tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path, kubernetes={}, executor=executor))
    assert problem.key == KUBERNETES
    assert executor in str(problem)


def test_quantities_may_be_numbers_and_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    values = {
        "resources": {"requests": {"cpu": 4, "memory": "0.5Gi"}, "limits": {"cpu": 4.0, "memory": "512Mi"}},
        "tolerations": ["nvidia.com/gpu"],
    }
    spec = read_spec(written(tmp_path, kubernetes=values)).compute.kubernetes
    assert spec is not None
    assert spec.resources.requests == {"cpu": "4", "memory": "0.5Gi"}
    assert (spec.gpus, spec.gpu_resource, spec.cache_volume) == (1, "nvidia.com/gpu", None)


def written(folder: Path, **compute: Any) -> Path:
    path = folder / "corpus.yaml"
    path.write_text(changed(compute=compute), encoding="utf-8")
    return path
