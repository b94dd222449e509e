"""The stages of a refresh, in order."""

from __future__ import annotations

from memorag_pipeline.runs.stage import Stage

_HERE = "memorag_pipeline.refresh"

INVENTORY = Stage("inventory", f"{_HERE}.inventory:take_inventory", plan=f"{_HERE}.plans:InventoryPlan")
EXTRACT = Stage(
    "extract",
    f"{_HERE}.extract:extract",
    planned_by=INVENTORY,
    units="parts",
    settled=("documents", "chunks", "tokens", "quarantined", "unsettled"),
)
SHARD = Stage("shard", f"{_HERE}.shard:plan_shards", plan_of=INVENTORY, plan=f"{_HERE}.plans:ShardPlan")
MEMORIZE = Stage(
    "memorize",
    f"{_HERE}.memorize:memorize",
    planned_by=SHARD,
    units="memories",
    gpu=True,
    counts=("memorized_tokens",),
    settled=("tokens",),
)
EMBED = Stage("embed", f"{_HERE}.embed:embed", planned_by=SHARD, units="embeddings", gpu=True, settled=("chunks",))
INDEX = Stage("index", f"{_HERE}.index:build_index", plan_of=SHARD, plan=f"{_HERE}.plans:IndexPlan")
PUBLISH = Stage("publish", f"{_HERE}.publish:publish", plan_of=INDEX, ends=True)
REFRESH = (INVENTORY, EXTRACT, SHARD, MEMORIZE, EMBED, INDEX, PUBLISH)

# With a section `evaluation` in the spec.
EVALUATE = Stage("evaluate", f"{_HERE}.evaluate:evaluate", gpu=True, ends=True)
PROMOTE = Stage("promote", f"{_HERE}.evaluate:promote", ends=True)
GATE = (EVALUATE, PROMOTE)

# With a warehouse in the spec, after all others and however the run ended.
RECORD = Stage("record", f"{_HERE}.record:record_refresh")
