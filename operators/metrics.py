"""Numbers of the stages as Airflow metrics, for StatsD or OpenTelemetry, wherever Airflow sends its own.

In:  the corpus, the stage and what it returned, and its seconds.
Out: counters and gauges below `memorag.`, with the tags `corpus` and `stage`. `docs/scheduling.md` lists them.
Wrong: without a metrics backend nothing is sent. Numbers that a stage does not return are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.observability import stats

from memorag_pipeline.jobs.answers.stages import GENERATE
from memorag_pipeline.refresh.stages import EMBED, INVENTORY, MEMORIZE, PUBLISH, SHARD

# By stage: the metric, and which of the stage's numbers it is.
_COUNTERS: dict[str, tuple[tuple[str, str], ...]] = {
    INVENTORY.name: (("documents_added", "added"), ("documents_changed", "changed"), ("documents_removed", "removed")),
    MEMORIZE.name: (("units_done", "shards"), ("tokens", "memorized_tokens"), ("tokens_reused", "reused_tokens")),
    EMBED.name: (("chunks_embedded", "embedded"), ("chunks_reused", "reused")),
    GENERATE.name: (("questions", "answered"), ("tokens", "input_tokens"), ("tokens", "output_tokens")),
    "sweep": (("bytes_deleted", "deleted_bytes"),),
    "verify": (("bytes_verified", "verified_bytes"),),
}
_GAUGES: dict[str, tuple[tuple[str, str], ...]] = {
    PUBLISH.name: (
        ("version", "version"),
        ("documents", "documents"),
        ("quarantined", "quarantined"),
        ("shards", "shards"),
        ("corpus_tokens", "tokens"),
    ),
    "sweep": (("bytes_condemned", "condemned_bytes"),),
}


def send(corpus: str, stage: str, result: Mapping[str, Any], seconds: float) -> None:
    """Send the numbers and seconds of one task's stage."""
    tags = {"corpus": corpus, "stage": stage}
    numbers = {**result, **result.get("counts", {})}
    stats.gauge("memorag.stage_seconds", seconds, tags=tags)
    stats.incr("memorag.seconds", round(seconds), tags=tags)
    for name, key in _COUNTERS.get(stage, ()):
        if key in numbers:
            stats.incr(f"memorag.{name}", int(numbers[key]), tags=tags)
    for name, key in _GAUGES.get(stage, ()):
        if key in numbers:
            stats.gauge(f"memorag.{name}", numbers[key], tags=tags)
    if stage == MEMORIZE.name and numbers.get("seconds"):
        stats.gauge("memorag.tokens_per_second", numbers["memorized_tokens"] / numbers["seconds"], tags=tags)
    if stage == SHARD.name:
        cached = numbers["shards"] - numbers["memorize_units"]
        stats.incr("memorag.units_cached", max(cached, 0), tags={"corpus": corpus, "stage": MEMORIZE.name})
