"""Retrieve: evidence for questions and their clues.

In:  questions, the clues recalled for each, the searcher of a version.
Out: for each question the passages given to the generator, within its budget of tokens.
Wrong: a blob of the index that is missing or altered is refused; a question without any passage gets none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from memorag_pipeline.jobs.settings import AnswerSettings

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher

_HITS_PER_PASSAGE = 3  # passages looked at for each one wanted: some are dropped as duplicates or do not fit


def retrieve_evidence(
    searcher: Searcher,
    questions: Sequence[str],
    clues: Sequence[Sequence[str]],
    settings: AnswerSettings,
    count_tokens: Callable[[str], int],
) -> list[list[Passage]]:
    """Evidence of each question, best first. All questions and clues are embedded and searched together."""
    from memorag_pipeline.retrieval.evidence import select_evidence

    # What two shards recall alike is one clue: it is not more likely to be right for being said twice.
    queries = [list(dict.fromkeys([question, *recalled])) for question, recalled in zip(questions, clues, strict=True)]
    distinct = list(dict.fromkeys(query for group in queries for query in group))
    found = searcher.search(distinct, settings.evidence * _HITS_PER_PASSAGE) if distinct else []
    hits = dict(zip(distinct, found, strict=True))
    return [
        select_evidence(
            [hits[query] for query in group], settings.evidence, count_tokens, settings.generation.evidence_tokens
        )
        for group in queries
    ]
