"""One DAG for each training spec: `<adapter>_train`, which trains an adapter and promotes it if it is better.

    prepare → study → train → evaluate → register → promote

The specs are the `*.yaml` and `*.yml` files of `corpora/training/` beside this file, or of the folder `training` in
MEMORAG_SPECS. A spec that is refused has no DAG here; `refused_specs.py` says why.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, TriggerRule

from memorag_operators import (
    EvaluateOperator,
    PrepareTrainingOperator,
    PromoteOperator,
    RegisterOperator,
    StudyOperator,
    TrainOperator,
)
from memorag_operators.placement import pool_note, retry_arguments, task_arguments
from memorag_operators.spec_folder import read_spec_folder, spec_folder, train_dag_id
from memorag_operators.stage_operator import StageOperator
from memorag_operators.training import adapter_asset
from memorag_pipeline.specs.training import TrainingSpec


def build_training_dag(spec_file: Path, spec: TrainingSpec) -> DAG:
    """The training of one adapter."""

    def task(operator: type[StageOperator]) -> dict[str, Any]:
        return task_arguments(operator.stage, str(spec_file), spec.compute)

    with DAG(
        train_dag_id(spec),
        description=spec.description or f"Train the adapter {spec.adapter} and promote it if it is better.",
        schedule=spec.cron,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        tags=["memorag", "train", spec.adapter],
        doc_md=_doc(spec_file, spec) + pool_note(spec.compute),
    ) as dag:
        prepare = PrepareTrainingOperator(**task(PrepareTrainingOperator))
        study = StudyOperator(work=prepare.output["plan"], **task(StudyOperator))
        train = TrainOperator(work=study.output["plan"], **task(TrainOperator))
        evaluate = EvaluateOperator(work=train.output["trained"], **task(EvaluateOperator))
        register = RegisterOperator(
            work=evaluate.output["evaluated"], outlets=[adapter_asset(spec.adapter)], **task(RegisterOperator)
        )
        # The gate may have changed since the version was published.
        PromoteOperator(
            version=register.output["version"],
            trigger_rule=TriggerRule.NONE_FAILED,
            **task(PromoteOperator),
        )
    return dag


def _doc(spec_file: Path, spec: TrainingSpec) -> str:
    schedule = spec.schedule
    return f"""
Trains the adapter **{spec.adapter}** for `{spec.model}`. {spec.description}

* Training: {schedule.tokens:,} tokens of text, {schedule.instruction_tokens:,} of instructions
* Memory: window {spec.window}, ratios {", ".join(map(str, spec.ratios))}, sink {spec.sink}
* Store: `{spec.store.uri}`
* Spec: `{spec_file.name}`

A retry goes on from the newest checkpoint. The same spec, data and model are not trained again: `register` is then
skipped. `promote` points the channel to the new version if it closes more of the gap than the one before.
"""


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).trainings.items():
    build_training_dag(_spec_file, _spec)
