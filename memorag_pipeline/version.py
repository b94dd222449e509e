"""The published artifact, as a service uses it: searchable, answerable, pinned to one version.

In:  the root of a corpus (`{store.uri}/{corpus}`), and a version number or a channel, or neither for the newest.
Out: a `Version`. Its contents are read on demand, memory-mapped, and verified by digest before use.
Wrong: an unknown version or channel is a `NotFoundError`; a missing or altered blob a `CorruptBlobError` naming it; a
       model by path or URL that the caller did not allow an `UntrustedReferenceError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memorag_pipeline.errors import ArgumentError
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.specs.answer_kinds import AnswerMode, ClueKind
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.storage import CorpusStore

if TYPE_CHECKING:
    from memorag_pipeline.jobs.answers.answer import Answer, Recollection
    from memorag_pipeline.jobs.summaries.summary import Summary


def open_version(
    uri: str,
    version: int | str | None = None,
    channel: str | None = None,
    storage_options: dict[str, Any] | None = None,
    trust_models: bool = False,
    prefetch: bool = False,
) -> Version:
    """Open a version of the corpus at `uri` (such as `s3://bucket/kb/handbook`): by number, by channel, or the newest.

    `version` may also be the name of a channel, as on the command line. `storage_options` are those of fsspec. With
    `trust_models` the version may name its models by local paths and URLs: only for a store whose every writer is
    trusted. With `prefetch` the first search fetches the whole index, as a service wants it; without it, of a large
    index in a remote store only what searches look into.

    Raises ArgumentError, NotFoundError, StorageError, CorruptBlobError.
    """
    if version is not None and channel is not None:
        raise ArgumentError("give version or channel, not both")
    store = CorpusStore(uri, storage_options)
    return Version(store, store.number(version if channel is None else channel), trust_models, prefetch=prefetch)


class Version(OpenedVersion):
    """One version of a corpus, to be searched and asked. It never changes; open another to see a later refresh."""

    def newest(self, channel: str | None = None) -> int:
        """The number of the corpus's newest version, or of the one that `channel` points to now.

        Cheap (one listing, or one small object), so a service can check every few seconds whether it should open
        another version. Raises NotFoundError, StorageError.
        """
        return self.store.number(channel)

    def answer(
        self,
        questions: str | Sequence[str],
        mode: AnswerMode = "memorag",
        clues: Sequence[ClueKind] = ("spans", "surrogates"),
        offer_draft: bool = False,
        generation: GenerationSpec | None = None,
    ) -> list[Answer]:
        """Answer questions: clues from the memories, evidence from the index, text from the generator.

        In mode memory_only the memory of the best shard writes the answer, and there is no evidence; in mode
        retrieval_only the memories are not asked. `offer_draft` gives the draft among the clues to the generator as a
        possible answer. Without `generation` the memory model writes the answers.
        Returns one answer per question, in order; a question that fails has its error in its answer. A single text is
        one question.
        """
        from memorag_pipeline.jobs.answers.ask import answer_questions
        from memorag_pipeline.jobs.answers.settings import AnswerSettings

        self.require_trusted_models("memory", "embedding")
        settings = AnswerSettings.of_version(
            self.manifest, generation, mode=mode, clues=tuple(clues), offer_draft=offer_draft
        )
        return answer_questions(self, _questions(questions), settings)

    def recall(self, questions: str | Sequence[str], kinds: Sequence[ClueKind] = ()) -> list[Recollection]:
        """What the memories recall for each question: these kinds of clues, or by default those that jobs use."""
        from memorag_pipeline.jobs.answers.ask import recall_questions
        from memorag_pipeline.jobs.answers.settings import AnswerSettings

        self.require_trusted_models("memory", "embedding")
        chosen: dict[str, Any] = {"clues": tuple(kinds)} if kinds else {}
        return recall_questions(self, _questions(questions), AnswerSettings.of_version(self.manifest, **chosen))

    def summarize(self, document: str | None = None, include: Sequence[str] = (), focus: str | None = None) -> Summary:
        """Summarize one document, or the documents that the globs `include` match, or the whole corpus.

        `document` is a URI, or a name relative to the source's URI, like globs; `focus` a question to summarize for. A
        summary that fails has its error in it. Raises NotFoundError if there is nothing to summarize.
        """
        from memorag_pipeline.jobs.summaries.summarize import summarize

        self.require_trusted_models("memory", "embedding")
        return summarize(self, document, include, focus)


def _questions(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given
