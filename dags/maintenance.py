"""One DAG for each corpus spec with a section `maintenance`: `<corpus>_maintenance`, which looks after its store.

    retire → sweep → verify

What no rule keeps is retired, what nothing refers to is condemned and deleted a grace period later, and a share of the
blobs of all versions is read and compared with its digests. Refreshes and jobs may run at the same time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from memorag_operators import RetireOperator, SweepOperator, VerifySampleOperator
from memorag_operators.alerts import alert_arguments
from memorag_operators.placement import retry_arguments, task_arguments
from memorag_operators.spec_folder import maintenance_dag_id, read_spec_folder, spec_folder
from memorag_operators.stage_operator import StageOperator
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.operation import MaintenanceSpec


def build_maintenance_dag(spec_file: Path, spec: CorpusSpec, maintenance: MaintenanceSpec) -> DAG:
    """The maintenance of one corpus's store."""

    def task(operator: type[StageOperator]) -> dict[str, Any]:
        return task_arguments(operator.stage, str(spec_file), spec.compute)

    with DAG(
        maintenance_dag_id(spec),
        description=f"Retire old versions of {spec.corpus}, sweep its store, and verify a sample of it.",
        schedule=maintenance.schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        tags=["memorag", "maintenance", spec.corpus],
        **alert_arguments(str(spec_file), spec, "maintenance"),
        doc_md=_doc(spec_file, spec, maintenance),
    ) as dag:
        retire = RetireOperator(**task(RetireOperator))
        sweep = SweepOperator(**task(SweepOperator))
        verify = VerifySampleOperator(share=maintenance.verify_share, **task(VerifySampleOperator))
        retire >> sweep >> verify
    return dag


def _doc(spec_file: Path, spec: CorpusSpec, maintenance: MaintenanceSpec) -> str:
    rules = "all" if spec.store.retention.keeps_all else "those that `store.retention` keeps"
    return f"""
Looks after the store of the corpus **{spec.corpus}**, `{spec.store.uri}`: versions stay {rules}; what nothing refers to
is deleted after {spec.store.retention.grace_days:g} days; {maintenance.verify_share:.0%} of the blobs are read again.

A damaged blob fails `verify`: run `{spec.corpus}_refresh` with `force`. Spec: `{spec_file.name}`
"""


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).specs.items():
    if _spec.maintenance is not None:
        build_maintenance_dag(_spec_file, _spec, _spec.maintenance)
