"""Retrieve: evidence for questions and their clues.

In:  questions, the clues recalled for each, the searcher of a version.
Out: for each question the passages given to the generator, within its token budget.
Wrong: a missing or altered blob of the index is refused; a question without hits gets no passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.specs.retrieval import RerankerSpec

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher


_HITS_PER_PASSAGE = 3  # candidates per passage wanted: some are dropped as duplicates or do not fit


def retrieve_evidence(
    searcher: Searcher,
    questions: Sequence[str],
    clues: Sequence[Sequence[str]],
    settings: AnswerSettings,
    count_tokens: Callable[[str], int],
) -> list[list[Passage]]:
    """Evidence of each question, best first (with `fusion: union` in document order).

    All questions and clues are embedded and searched together, and all their passages reranked together.
    """
    from memorag_pipeline.retrieval.evidence import choose, fuse, unite

    queries = [_queries(*each, settings) for each in zip(questions, clues, strict=True)]
    distinct = list(dict.fromkeys(query for group in queries for query in group))
    found = searcher.search(distinct, settings.evidence * _HITS_PER_PASSAGE) if distinct else []
    hits = dict(zip(distinct, found, strict=True))
    limit, budget = settings.evidence, settings.generation.evidence_tokens
    if settings.retrieval.fusion == "union":
        united = [unite([hits[query] for query in group], limit) for group in queries]
        return [choose(passages, None, count_tokens, budget) for passages in united]
    ranked = [fuse([hits[query] for query in group]) for group in queries]
    if settings.retrieval.reranker is not None:
        ranked = _reranked(settings.retrieval.reranker, questions, ranked)
    return [choose(passages, limit, count_tokens, budget) for passages in ranked]


def _queries(question: str, clues: Sequence[str], settings: AnswerSettings) -> list[str]:
    """The searches for a question: itself, and it with each of its clues; for a union the clues by themselves.

    A clue by itself drifts: a memory that is wrong about the question still writes about something, and that is found.
    A clue that two shards recall alike counts once: repetition does not make it more likely to be right.
    """
    distinct = (clue for clue in dict.fromkeys(clues) if clue != question)
    if settings.retrieval.fusion == "union":
        return [question, *distinct]
    return [question, *(f"{question} {clue}" for clue in distinct)]


def reading_order(passages: Sequence[Passage], settings: AnswerSettings) -> list[Passage]:
    """The passages in the order in which the generator reads them and markers such as [1] number them."""
    from memorag_pipeline.retrieval.evidence import in_document_order

    if not settings.best_last:
        return in_document_order(passages)
    # The best passage next to the question: a small model answers from what it read last.
    return list(reversed(passages))


def _reranked(spec: RerankerSpec, questions: Sequence[str], ranked: Sequence[Sequence[Passage]]) -> list[list[Passage]]:
    """The passages of each question by the reranker's score."""
    from memorag_pipeline.retrieval.reranker import load_reranker

    pairs = [
        (question, passage.text) for question, passages in zip(questions, ranked, strict=True) for passage in passages
    ]
    scores = iter(load_reranker(spec).scores(pairs))
    scored = [[(next(scores), passage) for passage in passages] for passages in ranked]
    return [[passage for _, passage in sorted(each, key=lambda pair: -pair[0])] for each in scored]
