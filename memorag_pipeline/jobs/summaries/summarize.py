"""One summary in process, without work lists: what `Version` and the command `memorag` use.

In:  a version; a document, or globs, or neither for the whole corpus; optionally a focus.
Out: a `Summary`, the same as that of a job with default settings.
Wrong: what opening the version's blobs and models raises; a summary that the generator cannot write has its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.jobs.summaries.generate import is_read_whole, write_parts
from memorag_pipeline.jobs.summaries.merge import merge_texts
from memorag_pipeline.jobs.summaries.part_tables import PartTables
from memorag_pipeline.jobs.summaries.recall import key_points_of
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.summary import PartSummary, Summary
from memorag_pipeline.jobs.summaries.targets import TargetPart, find_document, find_targets
from memorag_pipeline.progress import track

if TYPE_CHECKING:
    from memorag_pipeline.opened_version import OpenedVersion

__all__ = ["Summary", "summarize"]


def summarize(
    version: OpenedVersion,
    document: str | None = None,
    include: Sequence[str] = (),
    focus: str | None = None,
    settings: SummarySettings | None = None,
) -> Summary:
    """Summarize one document, or the documents that `include` matches (without globs: all), with `focus` or without."""
    if document is not None and include:
        raise ValueError("give document or include, not both")
    settings = settings or SummarySettings.of_version(version.manifest, focus)
    include = tuple(include) or ("**",)
    if document is not None:
        target = find_document(version, document)
    else:
        (target,) = find_targets(version, "corpus", include, settings.focus)
    recalled = _recall(version, target.parts, settings)
    with closing(open_generator(settings.models.generation, settings.models.memory)) as generator:
        parts = _write(version, target.parts, recalled, generator, settings)
        texts = [part.written.text for part in parts if part.written.text is not None]
        merged = None
        if 1 < len(texts) == len(parts):
            (merged,) = merge_texts([texts], generator, settings, lambda: None)
    return Summary.of(target, include, settings.focus, parts, merged)


def _recall(
    version: OpenedVersion, parts: Sequence[TargetPart], settings: SummarySettings
) -> list[tuple[Sequence[str], float]]:
    """Key points of all parts; of those that are read whole none."""
    asked = [part for part in parts if not is_read_whole(part, settings)]
    if not asked:
        return [((), 0.0)] * len(parts)
    with track("parts recalled", len(asked), "parts") as bar:
        found = iter(list(key_points_of(version, asked, settings, lambda: bar.advance(1))))
    return [((), 0.0) if is_read_whole(part, settings) else next(found) for part in parts]


def _write(
    version: OpenedVersion,
    parts: Sequence[TargetPart],
    recalled: Sequence[tuple[Sequence[str], float]],
    generator: Generator,
    settings: SummarySettings,
) -> list[PartSummary]:
    tables, written = PartTables(version), list[PartSummary]()
    with track("parts summarized", len(parts), "parts") as bar:
        for start in range(0, len(parts), generator.at_once):
            group = slice(start, start + generator.at_once)
            written += write_parts(
                version, tables, parts[group], recalled[group], generator, settings, lambda: bar.advance(1)
            )
    return written
