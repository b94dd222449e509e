"""Where and how often tasks run, from the `compute` section of a spec, as operator arguments.

In:  a `ComputeSpec`.
Out: keyword arguments for operators; what the spec leaves empty is left to the Airflow deployment.
Wrong: an unknown executor is refused with the spec. What pools there are is not known where DAGs are
       parsed: the DAG's documentation says which one it needs, and the page of the corpus whether it is missing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from memorag_operators.gpu_pod import pod_override
from memorag_pipeline.errors import ChunkTooLargeError
from memorag_pipeline.specs.compute import ComputeSpec

if TYPE_CHECKING:
    from memorag_pipeline.runs.stage import Stage

_AT_ONCE = timedelta(seconds=5)


def gpu_placement(compute: ComputeSpec) -> dict[str, Any]:
    """Arguments of the tasks that load a model."""
    arguments: dict[str, Any] = {"pool": compute.pool, "pool_slots": compute.pool_slots}
    if compute.queue:
        arguments["queue"] = compute.queue
    if compute.executor:
        arguments["executor"] = compute.executor
    pod: dict[str, Any] = {}
    if compute.pod_template:
        pod["pod_template_file"] = compute.pod_template
    if compute.kubernetes:
        pod["pod_override"] = pod_override(compute.kubernetes)
    if pod:
        arguments["executor_config"] = pod
    return arguments


def pool_advice(pool: str) -> str:
    """What happens without a pool, and what to do about it."""
    return (
        f"Without the pool `{pool}`, GPU tasks stay in state scheduled and never start. `memorag airflow setup` creates"
        " the pools of all specs, Airflow's page Admin → Pools a single one."
    )


def pool_note(compute: ComputeSpec) -> str:
    """The paragraph of a DAG's documentation about the pool that it needs; none for the default pool."""
    if compute.pool == ComputeSpec().pool:
        return ""
    return f"\nGPU tasks run in the pool `{compute.pool}`. {pool_advice(compute.pool)}\n"


def task_arguments(stage: Stage, spec_file: str, compute: ComputeSpec) -> dict[str, Any]:
    """Arguments of a stage's task: the stage determines its id, and whether it loads a model."""
    return {"task_id": stage.name, "spec_file": spec_file, **(gpu_placement(compute) if stage.gpu else {})}


def retry_arguments(compute: ComputeSpec) -> dict[str, Any]:
    """Retries of every task. A retry does only the units that are missing, on chunks of half the size.

    After an error of storage, an endpoint or a warehouse they come after about 30 s, 1 min, 2 min, …; after one that
    waiting does not fix, such as too large a chunk, at once. Errors that a person must fix are not retried at all: see
    `StageOperator`.
    """
    return {
        "retry_policy": ExceptionRetryPolicy(
            [
                RetryRule(
                    ChunkTooLargeError, RetryAction.RETRY, _AT_ONCE, "out of memory: again with chunks of half the size"
                )
            ]
        ),
        "retries": compute.retries,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=10),
    }
