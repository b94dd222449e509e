"""Stage merge: the summaries of a target's parts become one.

In:  a work list of targets in several parts, and the outcomes of these.
Out: for each target the merged text, as JSON.
Wrong: parts that were never summarized stop the stage; a target with a part that failed is not merged.

As many summaries as the generator can read at once become one, and these again, until one is left.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.jobs.citations import without_markers
from memorag_pipeline.jobs.summaries import generate as generate_stage
from memorag_pipeline.jobs.summaries.paid_generator import counted, open_paid_generator
from memorag_pipeline.jobs.summaries.plans import MergeList
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.stages import MERGE
from memorag_pipeline.jobs.summaries.summary import PartSummary, Written
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.storage import CorpusStore, Outcome, fingerprint

STAGE = MERGE.outcomes
STAGE_VERSION = 1


def merge_summaries(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Merge the summaries of the targets in a work list; returns counts, and what the generator took."""
    batch = pipeline.read_work(batch_uri, MergeList)
    settings = batch.settings
    targets: dict[str, list[str]] = {}
    for unit in batch.units:
        texts = [part.written.text for part in read_parts(pipeline.store, unit.parts)]
        whole = [text for text in texts if text is not None]
        if len(whole) == len(texts):
            targets[unit.fingerprint] = whole
    total = Counter(targets=len(targets))
    if targets:
        paid = pipeline.store.units.find_all(generate_stage.STAGE, batch.paid)
        opened = open_paid_generator(pipeline, settings, batch.run, [each for each in paid if each is not None])
        with closing(opened) as generator, track("summaries merged", len(targets), "summaries") as bar:
            merged = merge_texts(list(targets.values()), generator, settings, lambda: bar.advance(1))
        for fingerprint_of, written in zip(targets, merged, strict=True):
            counts = written.counts()
            pipeline.store.units.record(
                Outcome(
                    stage=STAGE,
                    fingerprint=fingerprint_of,
                    blobs={"summary": pipeline.store.blobs.put_json(asdict(written))},
                    counts=counts,
                    seconds=written.seconds,
                )
            )
            total.update(counts)
    return counted(total, settings)


def unit_of(parts: Sequence[str], settings: SummarySettings) -> str:
    """Fingerprint of the merged summary of parts with these fingerprints."""
    return fingerprint(STAGE, STAGE_VERSION, parts=parts, settings=settings.content())


def read_parts(store: CorpusStore, units: Sequence[str]) -> list[PartSummary]:
    """The summaries of parts by fingerprint, in order."""
    refs = []
    for unit, outcome in zip(units, store.units.find_all(generate_stage.STAGE, units), strict=True):
        if outcome is None:
            raise MemoragError(f"part {unit} is not summarized in {store.uri}; run generate first")
        refs.append(outcome.blobs["summary"])
    values = in_threads(lambda ref: store.blobs.get_json(ref, "summary of a part"), refs)
    return [PartSummary.read(value) for value in values]


def merge_texts(
    groups: Sequence[Sequence[str]], generator: Generator, settings: SummarySettings, advance: Callable[[], None]
) -> list[Written]:
    """One text for each group of two or more; what can be merged at the same time is asked together.

    `advance` is called when a group is done.
    """
    merging = [_Merging([without_markers(text) for text in texts]) for texts in groups]
    most = max(2, settings.budget // settings.models.generation.max_new_tokens)
    while waiting := [each for each in merging if not each.done]:
        started = time.perf_counter()
        asked = [(each, batch) for each in waiting for batch in _batches(each.texts, most)]
        several = [batch for _, batch in asked if len(batch) > 1]
        replies = iter(generator.reply([settings.prompts.merge(batch) for batch in several]))
        share = (time.perf_counter() - started) / len(several)
        for each in waiting:
            each.texts = []
        for each, batch in asked:
            if len(batch) == 1:
                each.texts.append(batch[0])
            else:
                each.take(Written.of(next(replies), share, settings.prompts.said))
        for each in waiting:
            if each.done:
                advance()
    return [each.written for each in merging]


class _Merging:
    """A target on its way to one text; `written` is the last reply, with what all of them took, or the first error."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.written = Written(None, None)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to merge, or an error."""
        return self.written.error is not None or len(self.texts) < 2

    def take(self, written: Written) -> None:
        """Continue with a reply."""
        before = self.written
        cut = "length" in (before.finish_reason, written.finish_reason)
        self.texts.append(written.text or "")
        self.written = replace(
            written if before.error is None else before,
            input_tokens=before.input_tokens + written.input_tokens,
            output_tokens=before.output_tokens + written.output_tokens,
            cost=written.cost if before.cost is None else before.cost + (written.cost or 0.0),
            seconds=before.seconds + written.seconds,
            finish_reason="length" if cut else written.finish_reason,
        )


def _batches(texts: Sequence[str], most: int) -> list[Sequence[str]]:
    """Texts in order, in as few batches of at most `most` as there can be, of nearly equal size."""
    count = -(-len(texts) // most)
    borders = [len(texts) * number // count for number in range(count + 1)]
    return [texts[start:end] for start, end in pairwise(borders)]
