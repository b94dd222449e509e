"""The facts of a refresh: from its task reports, its plan, the manifest that it published, and the parent's.

In:  a corpus store and the task reports of one refresh; or a version without task reports.
Out: a `RunReport`. Documents' texts are not read, and and of the tables only the inventory and the quarantine, which
     every refresh reads.
Wrong: what was swept, or belongs to a parent that was retired, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.corpus.quarantine import advice
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.refresh.plans import InventoryPlan, VersionEvaluation
from memorag_pipeline.refresh.stages import (
    EVALUATE,
    GATE,
    INVENTORY,
    PROMOTE,
    PUBLISH,
    REFRESH,
)
from memorag_pipeline.reports.facts import (
    BlobFacts,
    FormatFacts,
    MemoryFacts,
    QuarantineFacts,
    RunReport,
    ScoreFacts,
    State,
)
from memorag_pipeline.reports.progress import Plans, result_of
from memorag_pipeline.reports.stage_facts import problems, span, stage_facts
from memorag_pipeline.runs.tasks import Run, TaskReport
from memorag_pipeline.schemas import OF_ROLE
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.storage import BlobRef, CorpusStore, Manifest
from memorag_pipeline.storage.version_tables import Row, VersionTables

_SHOWN = 20  # documents of each reason in the quarantine
_ENDING = r"\.(?P<ending>[A-Za-z0-9]{1,8})$"
_IDENTITY = ("size", "etag", "modified")
_COUNTED = ("documents", "chunks", "quarantined", "shards", "tokens")


def of_run(store: CorpusStore, corpus: str, run: Run, reports: Sequence[TaskReport]) -> RunReport:
    """The report of `run`, from the reports of its tasks."""
    inventory, published = result_of(reports, INVENTORY), result_of(reports, PUBLISH)
    plans, changed = Plans(store), inventory.get("changed")
    plan = plans.at(inventory.get("plan"), InventoryPlan)
    evaluation = plans.at(result_of(reports, EVALUATE).get("evaluation"), VersionEvaluation)
    version = published.get("version") or (inventory.get("parent") if changed is False else None)
    failed = problems(reports)
    state: State = "unfinished"
    if published:
        state = "published" if published["created"] else "unchanged"
    elif changed is False:
        state = "unchanged"
    elif failed:
        state = "failed"
    tables = None if version is None else _tables(store, version)
    parent = None if plan is None else plan.parent
    return RunReport(
        corpus=corpus,
        uri=store.uri,
        state=state,
        version=version,
        parent=parent,
        stages=stage_facts(plans, reports, (INVENTORY,) if changed is False else (*REFRESH, *GATE)),
        scores=_scores(evaluation),
        compared_with=None if evaluation is None else evaluation.compared_with,
        gate=result_of(reports, PROMOTE).get("why"),
        problems=failed,
        **span(run, reports),
        **_of_tables(store, None if plan is None else plan.inventory, tables, parent),
    )


def of_version(store: CorpusStore, version: int) -> RunReport:
    """The report of a version from what it holds: without stages and their seconds, which only tasks report."""
    record, tables = store.versions.record(version), VersionTables(store, version)
    return RunReport(
        corpus=tables.manifest.corpus,
        uri=store.uri,
        run_id=record.run_id,
        state="published",
        ended_at=record.created_at,  # type: ignore[arg-type]  # pydantic reads the text
        version=version,
        parent=record.parent,
        **_of_tables(store, tables.manifest.one("inventory").ref, tables, record.parent),
    )


def _of_tables(
    store: CorpusStore, inventory: BlobRef | None, tables: VersionTables | None, parent: int | None
) -> dict[str, Any]:
    """The fields of a report that come from the inventory, the manifest, and those of the parent version."""
    of_parent = None if parent is None else _tables(store, parent)
    before = None if of_parent is None else of_parent.manifest
    quarantine = [] if tables is None else _quarantine(tables)
    found: dict[str, Any] = {"formats": _formats(store, inventory, before, [row["uri"] for row in quarantine])}
    if tables is not None:
        manifest = tables.manifest
        found |= {
            "counts": {name: manifest.counts[name] for name in _COUNTED if name in manifest.counts},
            "facts": _facts(manifest),
            "memories": _memories(manifest),
            "blobs": _blobs(manifest, before),
            "quarantine": _reasons(quarantine),
        }
    return found


def _tables(store: CorpusStore, version: int) -> VersionTables | None:
    """The tables of a version, also of a retired one that is there still."""
    try:
        return VersionTables(store, version, store.versions.pinned(version))
    except (CorruptBlobError, NotFoundError):
        return None


def _facts(manifest: Manifest) -> dict[str, str]:
    memory = manifest.section("memory", MemorySpec).model_dump()
    details = [f"{name} {memory[name]}" for name in ("ratio", "window", "codec") if memory.get(name) is not None]
    models = {f"{model.role} model": f"{model.name} (sha256:{model.digest[:12]})" for model in manifest.models}
    return {"memory": ", ".join([str(memory["kind"]), *details]), **models}


def _formats(
    store: CorpusStore, inventory: BlobRef | None, parent: Manifest | None, quarantined: Sequence[str]
) -> tuple[FormatFacts, ...]:
    """Source objects by the ending of their names: added, modified, removed, unchanged."""
    now = None if inventory is None else _table(store, inventory)
    if now is None:
        return ()
    then = None if parent is None else _table(store, parent.of_role("inventory")[0].ref)
    if then is None:
        then = now.schema.empty_table()
    joined = now.append_column("now", pa.repeat(True, len(now))).join(
        then.append_column("then", pa.repeat(True, len(then))), "uri", right_suffix="_then", join_type="full outer"
    )
    same = pc.and_kleene(joined["now"], joined["then"]).fill_null(False)
    for name in _IDENTITY:
        old, new = (pc.fill_null(pc.cast(joined[column], pa.string()), "") for column in (f"{name}_then", name))
        same = pc.and_(same, pc.equal(old, new))
    states = pc.case_when(
        pc.make_struct(pc.is_null(joined["then"]), pc.is_null(joined["now"]), same),
        "added",
        "removed",
        "unchanged",
        "modified",
    )
    counted = pa.table({"format": _endings(joined["uri"]), "state": states}).group_by(["format", "state"])
    rows: dict[str, dict[str, int]] = {}
    for row in counted.aggregate([([], "count_all")]).to_pylist():
        rows.setdefault(row["format"], {})[row["state"]] = row["count_all"]
    files = [uri.partition("#")[0] for uri in quarantined]
    for found in pc.value_counts(_endings(pa.array(sorted(set(files)), pa.string()))).to_pylist():
        rows.setdefault(found["values"], {})["quarantined"] = found["counts"]
    return tuple(FormatFacts(format=name, **rows[name]) for name in sorted(rows))


def _table(store: CorpusStore, ref: BlobRef) -> pa.Table | None:
    try:
        return store.blobs.cached_table(ref, ["uri", *_IDENTITY], "inventory", OF_ROLE["inventory"])
    except CorruptBlobError:
        return None


def _endings(uris: Any) -> Any:
    """What names end with, in lower case, without the dot."""
    found = pc.struct_field(pc.extract_regex(uris, _ENDING), "ending")
    return pc.fill_null(pc.utf8_lower(found), "none")


def _memories(manifest: Manifest) -> tuple[MemoryFacts, ...]:
    sizes = {shard_id: blob.size for shard_id, blob in manifest.memory_blobs.items()}
    kinds = {kind: [memory for memory in manifest.memories if memory.kind == kind] for kind in ("base", "delta")}
    return tuple(
        MemoryFacts(
            kind=kind,
            memories=len(memories),
            tokens=sum(memory.tokens for memory in memories),
            stale_tokens=sum(memory.stale_tokens for memory in memories),
            bytes=sum(sizes.get(memory.shard_id, 0) for memory in memories),
        )
        for kind, memories in kinds.items()
        if memories
    )


def _blobs(manifest: Manifest, parent: Manifest | None) -> tuple[BlobFacts, ...]:
    """By role, each blob once."""
    known = set() if parent is None else {blob.digest for blob in parent.blobs}
    roles: dict[str, dict[str, int]] = {}
    for blob in manifest.blobs:
        roles.setdefault(blob.role, {})[blob.digest] = blob.size
    return tuple(
        BlobFacts(
            role=role,
            blobs=len(sizes),
            bytes=sum(sizes.values()),
            new_bytes=sum(size for digest, size in sizes.items() if digest not in known),
        )
        for role, sizes in roles.items()
    )


def _quarantine(tables: VersionTables) -> list[Row]:
    return sorted(tables.rows("quarantine"), key=lambda row: (row["reason"], row["uri"]))


def _reasons(rows: Sequence[dict[str, Any]]) -> tuple[QuarantineFacts, ...]:
    """By reason, the most frequent one first."""
    found = []
    for reason, group in groupby(rows, lambda row: row["reason"]):
        same = list(group)
        found.append(
            QuarantineFacts(
                reason=reason,
                documents=len(same),
                advice=same[0].get("advice") or advice(reason),
                some=tuple((row["uri"], row["detail"]) for row in same[:_SHOWN]),
            )
        )
    return tuple(sorted(found, key=lambda facts: -facts.documents))


def _scores(evaluation: VersionEvaluation | None) -> tuple[ScoreFacts, ...]:
    """What the stage evaluate measured, beside the scores of the version that it compared with."""
    return tuple(
        ScoreFacts(name=found.metric, value=found.score, before=found.compared, change=found.change)
        for found in (() if evaluation is None else evaluation.verdicts)
        if found.score is not None
    )
