"""Reports forget what `refresh.purge` names: those that cite such a document are written again without it.

In:  a corpus store and the globs of documents to be forgotten.
Out: the number of reports that were rewritten, or deleted because nobody can tell what they cite.
Wrong: a store that fails is a `StorageError`: some reports may still hold such passages, and the next refresh goes on.

A report may cite the document under an earlier name, or a clue that a memory took from it. So in reports over retired
versions a passage stays only if the newest version has its document, and no clue does; nor do the clues of a run that
carried answers over from an earlier version.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import QuarantineFacts, RunReport, SampleAnswer
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.version_tables import VersionTables

logger = logging.getLogger(__name__)


def forget(store: CorpusStore, globs: Sequence[str]) -> int:
    """Take out of all reports what is of documents that match one of the globs; returns how many were changed."""
    if not globs:
        return 0
    forgotten = Forgotten(Purge(tuple(globs)), _documents(store), frozenset(store.versions.retired()))
    changed = in_threads(lambda key: _rewrite(store, key, forgotten), archive.keys(store.objects))
    if any(changed):
        logger.info("%d reports are rewritten without documents that refresh.purge names", sum(changed))
    return sum(changed)


@dataclass(frozen=True)
class Forgotten:
    """What is to be forgotten. `documents` are the URIs of the newest version, None if they are not known."""

    purge: Purge
    documents: frozenset[str] | None
    retired: frozenset[int]

    def without(self, report: RunReport) -> RunReport:
        """The report without what is to be forgotten; the same if that is nothing."""
        old = report.version in self.retired
        samples = tuple(self._sample(sample, old) for sample in report.samples if not self._is_of(sample.question))
        if old or report.carried_over:
            samples = tuple(sample.model_copy(update={"clues": ()}) for sample in samples)
        quarantine = tuple(map(self._reason, report.quarantine))
        found = report.model_copy(update={"samples": samples, "quarantine": quarantine})
        return report if found == report else found.model_copy(update={"purged": True})

    def _sample(self, sample: SampleAnswer, old: bool) -> SampleAnswer:
        evidence = tuple(
            passage
            for passage in sample.evidence
            if not self._names(passage.uri) and not (old and self._is_gone(passage.uri))
        )
        if len(evidence) == len(sample.evidence):
            return sample
        return sample.model_copy(update={"evidence": evidence, "clues": (), "answer": None, "purged": True})

    def _reason(self, reason: QuarantineFacts) -> QuarantineFacts:
        some = tuple((uri, detail) for uri, detail in reason.some if not self._names(uri))
        return reason.model_copy(update={"some": some})

    def _is_of(self, title: str) -> bool:
        """Whether a summary is of such a document: its title is the URI, or the URI, a colon and a focus."""
        parts = title.split(": ")
        return any(self._names(": ".join(parts[:end])) for end in range(1, len(parts) + 1))

    def _names(self, uri: str) -> bool:
        return any(map(self.purge.matches, _with_file(uri)))

    def _is_gone(self, uri: str) -> bool:
        return self.documents is not None and self.documents.isdisjoint(_with_file(uri))


def _with_file(uri: str) -> tuple[str, str]:
    """A document's URI and, for a record, that of its file."""
    return uri, uri.rpartition("#")[0] or uri


def _rewrite(store: CorpusStore, key: str, forgotten: Forgotten) -> bool:
    from memorag_pipeline.reports.page import run_page

    report = archive.read(store.objects, key)
    if report is None:
        logger.warning("%s is deleted: what it cites cannot be read", store.objects.uri_of(key))
        archive.delete(store.objects, key)
        return True
    found = forgotten.without(report)
    if found is not report:
        archive.replace(store.objects, key, found, run_page(found))
    return found is not report


def _documents(store: CorpusStore) -> frozenset[str] | None:
    newest = store.versions.newest()
    if newest is None:
        return None
    try:
        return frozenset(row["uri"] for row in VersionTables(store, newest).rows("inventory", ["uri"]))
    except CorruptBlobError:
        return None
