"""One DAG for each corpus spec: `<corpus>_refresh`, which publishes a new version when the source changed.

    inventory → extract (mapped) → shard → memorize (mapped) ─────────────┬→ index → publish → asset memorag://<corpus>
                                         └→ embed_work → embed (mapped) ──┘

With a section `evaluation` in the spec, publish → evaluate → promote: the channel follows a version that passes, and
only then the asset has an event.
A spec with a `warehouse` gives it a last task, `record`, that notes the run there, however it ended.

The specs are the `*.yaml` and `*.yml` files of `corpora/` beside this file, or of the folder MEMORAG_SPECS. A spec that
is refused has no DAG here; `refused_specs.py` says why.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TriggerRule

from memorag_operators import (
    EmbedOperator,
    EvaluateVersionOperator,
    ExtractOperator,
    IndexOperator,
    InventoryOperator,
    MemorizeOperator,
    PromoteVersionOperator,
    PublishOperator,
    RecordOperator,
    ShardOperator,
    WorkListOperator,
    version_asset,
)
from memorag_operators.alerts import alert_arguments
from memorag_operators.placement import pool_note, retry_arguments, task_arguments
from memorag_operators.spec_folder import read_spec_folder, refresh_dag_id, spec_folder
from memorag_operators.stage_operator import StageOperator
from memorag_operators.watcher import schedule_of, source_asset
from memorag_pipeline.refresh.stages import EMBED
from memorag_pipeline.specs.corpus import CorpusSpec

PARAMS = {
    "documents": Param(
        None,
        type=["null", "string"],
        title="Documents",
        description="Glob of URIs: read only these documents and leave the others as they are. Empty: all documents.",
    ),
    "force": Param(
        False,
        type="boolean",
        title="Force",
        description="Read all of the newest version, rebuild what is damaged, and go on even if nothing changed.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Only say what the refresh would do, in the first task's log.",
    ),
}


def build_refresh_dag(spec_file: Path, spec: CorpusSpec) -> DAG:
    """The refresh of one corpus."""

    def task(operator: type[StageOperator]) -> dict[str, Any]:
        return task_arguments(operator.stage, str(spec_file), spec.compute)

    # A mapped task over an empty list is skipped: all of its units are cached. What follows must run all the same.
    resume = {"trigger_rule": TriggerRule.NONE_FAILED}

    with DAG(
        refresh_dag_id(spec),
        description=spec.description or f"Publish a new version of {spec.corpus} when its source changed.",
        schedule=schedule_of(spec.schedule, source_asset(str(spec_file), spec)),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        params=PARAMS,
        tags=["memorag", "refresh", spec.corpus],
        **alert_arguments(str(spec_file), spec),
        doc_md=_doc(spec_file, spec) + pool_note(spec.compute),
    ) as dag:
        inventory = InventoryOperator(
            documents="{{ params.documents or '' }}",
            force="{{ params.force }}",
            dry_run="{{ params.dry_run }}",
            **task(InventoryOperator),
        )
        extract = ExtractOperator.partial(**task(ExtractOperator)).expand(batch=inventory.output)
        shard = ShardOperator(plan=inventory.output["plan"], **task(ShardOperator), **resume)
        memorize = MemorizeOperator.partial(**task(MemorizeOperator)).expand(batch=shard.output)
        embed_work = WorkListOperator(task_id=f"{EMBED.name}_work", batches=shard.output[EMBED.name])
        embed = EmbedOperator.partial(**task(EmbedOperator)).expand(batch=embed_work.output)
        index = IndexOperator(plan=shard.output["plan"], **task(IndexOperator), **resume)
        new_versions = [version_asset(spec.corpus)]
        gated = spec.evaluation is not None
        publish = PublishOperator(
            plan=index.output["plan"], outlets=[] if gated else new_versions, **task(PublishOperator)
        )
        extract >> shard
        [memorize, embed] >> index >> publish
        last: BaseOperator = publish
        if gated:
            # Publish is skipped where another run published the same, and perhaps died before it evaluated it.
            evaluate = EvaluateVersionOperator(
                version=publish.output["version"], **task(EvaluateVersionOperator), **resume
            )
            last = PromoteVersionOperator(
                evaluation=evaluate.output["evaluation"], outlets=new_versions, **task(PromoteVersionOperator)
            )
        if spec.warehouse is not None:
            last >> RecordOperator(trigger_rule=TriggerRule.ALL_DONE, **task(RecordOperator))
    return dag


def _doc(spec_file: Path, spec: CorpusSpec) -> str:
    sources = "\n".join(f"* `{uri}` ({', '.join(spec.source.include)})" for uri in spec.source.uris)
    return f"""
Refreshes the corpus **{spec.corpus}**. {spec.description}

Source:
{sources}

Store: `{spec.store.uri}` · memory: {spec.memory.kind}, `{spec.memory.model}` · embedding: `{spec.embedding.model}`

Costs what the change costs: units whose inputs did not change are not done again, in this run or in a retry. When
nothing changed, everything after `inventory` is skipped. {_which(spec)} sends an event of the asset
`memorag://{spec.corpus}`, which starts jobs. Spec: `{spec_file.name}`
"""


def _which(spec: CorpusSpec) -> str:
    if spec.evaluation is None:
        return "Each new version"
    return f"A new version that passes the gate becomes that of the channel `{spec.evaluation.channel}`, and"


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).specs.items():
    build_refresh_dag(_spec_file, _spec)
