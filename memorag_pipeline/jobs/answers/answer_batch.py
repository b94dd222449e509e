"""From questions and their clues to answers: evidence, generation, citations.

In:  questions with their clues, the searcher of a version, a generator.
Out: an `Answer` for each question.
Wrong: a question that fails is an `Answer` with its error; errors of the searcher or the generator as such are raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memorag_pipeline.generators.interface import Generator, Reply
from memorag_pipeline.jobs.answers.answer import Answer, Clue
from memorag_pipeline.jobs.answers.retrieve import reading_order, retrieve_evidence
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.citations import used_passages
from memorag_pipeline.prompts.echo import no_text, without_echo

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher


def answer_batch(
    questions: Sequence[Mapping[str, Any]],
    clues: Sequence[Sequence[Clue]],
    searcher: Searcher,
    generator: Generator,
    settings: AnswerSettings,
    advance: Callable[[], None],
) -> list[Answer]:
    """One answer for each row (question_id, question, error) of `questions`, in order.

    `clues` are those of each question, its best shard's first. `advance` is called once per question.
    """
    started = time.perf_counter()
    asked = [number for number, row in enumerate(questions) if row["error"] is None]
    evidence = offered_evidence(
        searcher,
        [questions[number]["question"] for number in asked],
        [clues[number] for number in asked],
        settings,
        generator.count_tokens,
    )
    found = {number: passages for number, passages in zip(asked, evidence, strict=True) if passages}
    for _ in range(len(questions) - len(found)):
        advance()
    conversations, said = [], dict[int, tuple[str, ...]]()
    for number, passages in found.items():
        question = questions[number]["question"]
        prompts = settings.prompts_for(question)
        draft = _draft(clues[number]) if settings.offer_draft else None
        said[number] = prompts.said(question)
        conversations.append(prompts.answer(question, [passage.text for passage in passages], draft))
    replied = dict(zip(found, generator.reply(conversations, advance), strict=True))
    share = (time.perf_counter() - started) / max(1, len(asked))
    return [
        answer_of(row, clues[number], found.get(number, ()), replied.get(number), share, said.get(number, ()))
        for number, row in enumerate(questions)
    ]


def offered_evidence(
    searcher: Searcher,
    questions: Sequence[str],
    clues: Sequence[Sequence[Clue]],
    settings: AnswerSettings,
    count_tokens: Callable[[str], int],
) -> list[list[Passage]]:
    """The passages of each question in the order of their numbers in the prompt."""
    texts = [[clue.text for clue in each] for each in clues]
    found = retrieve_evidence(searcher, questions, texts, settings, count_tokens)
    return [reading_order(passages, settings) for passages in found]


def _draft(clues: Sequence[Clue]) -> str | None:
    """The draft of the best shard whose memory wrote one."""
    return next((clue.text for clue in clues if clue.kind == "draft"), None)


def answer_of(
    row: Mapping[str, Any],
    clues: Sequence[Clue],
    evidence: Sequence[Passage],
    reply: Reply | None,
    seconds: float,
    said: Sequence[str] = (),
) -> Answer:
    """The result for one question; `said` are texts of the prompt, which are no answer if the reply repeats them."""
    question_id, question = row["question_id"], row["question"]
    if row["error"] is not None:
        return Answer(question_id, question, "error", None, row["error"])
    if reply is None:
        problem = "no passage was found for the question or its clues"
        return Answer(question_id, question, "no_evidence", None, problem, tuple(clues), seconds=seconds)
    text = without_echo(reply.text, [question, *said])
    error = reply.error or (None if text else no_text(reply.text))
    used, cited_by = ((), None) if error else used_passages(text, question, [each.text for each in evidence])
    return Answer(
        question_id,
        question,
        "error" if error else "answered",
        None if error else text,
        error,
        tuple(clues),
        tuple(evidence),
        used,
        cited_by,
        reply.input_tokens,
        reply.output_tokens,
        seconds,
        cost=reply.cost,
        reused=reply.reused,
        unfinished=reply.retryable,
        finish_reason=reply.finish_reason,
    )
