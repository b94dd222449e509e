"""Stage generate of summaries: a summary of each part, from passages that its key points find or, if it is short, from
all of it.

In:  a work list of parts, and the outcomes of their recall units.
Out: for each part a `PartSummary`, as JSON.
Wrong: key points that were never recalled, or an endpoint that refuses everything, stop the stage; a part that fails
       has its error, and is done again by the next run if it may go better then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.jobs.summaries import recall as recall_stage
from memorag_pipeline.jobs.summaries.paid_generator import counted, open_paid_generator
from memorag_pipeline.jobs.summaries.part_tables import PartTables
from memorag_pipeline.jobs.summaries.passages import choose, spread
from memorag_pipeline.jobs.summaries.plans import GenerateList, SummaryUnit
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.stages import GENERATE
from memorag_pipeline.jobs.summaries.summary import PartSummary, Written
from memorag_pipeline.jobs.summaries.targets import TargetPart
from memorag_pipeline.jobs.units import is_finished
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.storage import Manifest, Outcome, fingerprint

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage


STAGE = GENERATE.outcomes
STAGE_VERSION = 2

Advance = Callable[[], None]


def summarize_parts(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Summarize the parts of a work list; returns counts, tokens and cost."""
    batch = pipeline.read_work(batch_uri, GenerateList)
    settings = batch.settings
    found = pipeline.store.units.find_all(STAGE, [unit.fingerprint for unit in batch.units])
    # What of the work list is finished was not when the run began: the run's own task did it, and was killed.
    done = [outcome for outcome in found if outcome is not None and is_finished(outcome)]
    todo = [
        unit for unit, outcome in zip(batch.units, found, strict=True) if outcome is None or not is_finished(outcome)
    ]
    total = Counter(parts=len(todo))
    if todo:
        version = OpenedVersion(pipeline.store, batch.version, trust_models=True, pinned=True)
        tables = PartTables(version)
        opened = closing(open_paid_generator(pipeline, settings, batch.run, done))
        with opened as generator, track("parts summarized", len(todo), "parts") as bar:
            for start in range(0, len(todo), generator.at_once):
                group = todo[start : start + generator.at_once]
                parts = [unit.part for unit in group]
                recalled = _recalled(pipeline, group)
                written = write_parts(version, tables, parts, recalled, generator, settings, lambda: bar.advance(1))
                for unit, summary in zip(group, written, strict=True):
                    total.update(_record(pipeline, unit.fingerprint, summary))
    return counted(total, settings)


def unit_of(manifest: Manifest, part: TargetPart, recall: str | None, settings: SummarySettings) -> str:
    """Fingerprint of a part's summary; `recall` is that of its key points, None if the part is read whole."""
    cited = {"document_id", "uri", "start", "end", "content"}
    sections = [section.model_dump(include=cited) for section in part.sections]
    return fingerprint(
        STAGE,
        STAGE_VERSION,
        sections=sections,
        recall=recall,
        chunking=manifest.spec.get("chunking"),
        embedding=[manifest.spec.get("embedding"), *(m.digest for m in manifest.models if m.role == "embedding")],
        settings=settings.content(),
    )


def is_read_whole(part: TargetPart, settings: SummarySettings) -> bool:
    """Whether the generator can read all of a part, counted by the memory model's tokenizer; then nothing is
    recalled."""
    return part.tokens <= settings.budget


def write_parts(
    version: OpenedVersion,
    tables: PartTables,
    parts: Sequence[TargetPart],
    recalled: Sequence[tuple[Sequence[str], float]],
    generator: Generator,
    settings: SummarySettings,
    advance: Advance,
) -> list[PartSummary]:
    """A summary of each part; `recalled` are its key points and their seconds."""
    started = time.perf_counter()
    points = [found for found, _ in recalled]
    offered = _offered(version, tables, parts, points, generator, settings)
    conversations = [settings.prompts.summarize([passage.text for passage in passages]) for passages in offered]
    replies = generator.reply(conversations, advance)
    share = (time.perf_counter() - started) / len(parts)
    return [
        PartSummary.of(Written.of(reply, seconds + share, settings.prompts.said), found, passages)
        for reply, (found, seconds), passages in zip(replies, recalled, offered, strict=True)
    ]


def _offered(
    version: OpenedVersion,
    tables: PartTables,
    parts: Sequence[TargetPart],
    points: Sequence[Sequence[str]],
    generator: Generator,
    settings: SummarySettings,
) -> list[list[Passage]]:
    """The passages of each part that the generator reads. The queries of all parts are embedded together."""
    focus = [settings.focus] if settings.focus is not None else []
    queries = [
        [] if is_read_whole(part, settings) else list(dict.fromkeys([*focus, *found]))
        for part, found in zip(parts, points, strict=True)
    ]
    distinct = list(dict.fromkeys(query for group in queries for query in group))
    vectors = version.searcher.embed(distinct) if distinct else None
    places = {query: place for place, query in enumerate(distinct)}
    offered = []
    for part, group in zip(parts, queries, strict=True):
        if is_read_whole(part, settings):
            offered.append(tables.passages(part))
            continue
        if vectors is None or not group:
            hits = [spread(tables.passages(part), settings.passages)]
        else:
            hits = tables.nearest(part, vectors[[places[query] for query in group]])
        offered.append(choose(hits, settings.passages, generator.count_tokens, settings.budget))
    return offered


def _recalled(pipeline: Pipeline, units: Sequence[SummaryUnit]) -> list[tuple[list[str], float]]:
    """Key points of units, and the seconds that they took."""
    wanted = [unit.recall for unit in units if unit.recall is not None]
    outcomes = dict(zip(wanted, pipeline.store.units.find_all(recall_stage.STAGE, wanted), strict=True))
    found: list[tuple[list[str], float]] = []
    for unit in units:
        outcome = None if unit.recall is None else outcomes[unit.recall]
        if unit.recall is None:
            found.append(([], 0.0))
        elif outcome is None:
            shard = unit.part.shard_id
            raise MemoragError(f"shard {shard}: its key points were not recalled yet; run recall first, then generate")
        else:
            points = pipeline.store.blobs.get_json(outcome.blobs["key_points"], "key points of a part")
            found.append((points, outcome.seconds))
    return found


def _record(pipeline: Pipeline, unit: str, summary: PartSummary) -> dict[str, int]:
    counts = summary.written.counts()
    pipeline.store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=unit,
            blobs={"summary": pipeline.store.blobs.put_json(asdict(summary))},
            counts=counts,
            seconds=summary.written.seconds,
        )
    )
    return counts
