"""The compute section of a spec as operator arguments."""

from __future__ import annotations

import pytest

from memorag_pipeline.specs.compute import ComputeSpec

placement = pytest.importorskip("memorag_operators.placement")


def test_what_the_spec_leaves_empty_is_left_to_the_deployment() -> None:
    assert placement.gpu_placement(ComputeSpec()) == {"pool": "default_pool", "pool_slots": 1}


def test_every_setting_of_the_spec_reaches_the_operator() -> None:
    compute = ComputeSpec(queue="gpu", pool="gpu", pool_slots=2, executor="KubernetesExecutor", pod_template="gpu.yaml")
    assert placement.gpu_placement(compute) == {
        "queue": "gpu",
        "pool": "gpu",
        "pool_slots": 2,
        "executor": "KubernetesExecutor",
        "executor_config": {"pod_template_file": "gpu.yaml"},
    }


def test_a_pod_of_the_spec_is_laid_over_its_template() -> None:
    compute = ComputeSpec.model_validate({"pod_template": "gpu.yaml", "kubernetes": {"gpus": 2}})
    config = placement.gpu_placement(compute)["executor_config"]
    assert config.keys() == {"pod_template_file", "pod_override"}
    assert config["pod_override"].spec.containers[0].resources.limits == {"nvidia.com/gpu": "2"}


def test_retries_come_from_the_spec_and_back_off() -> None:
    arguments = placement.retry_arguments(ComputeSpec(retries=5))
    assert arguments["retries"] == 5
    assert arguments["retry_exponential_backoff"] > 1
