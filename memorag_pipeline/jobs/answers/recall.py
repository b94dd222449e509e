"""Stage recall: clues for questions, from the memory of one shard at a time.

In:  a work list of shards, each with the questions routed to it, by their numbers in the run's file of questions.
Out: for each question and shard a unit: the recalled clues, or in mode memory_only the memory's answer.
Wrong: a memory that is missing, altered or of another model is refused; a question that does not fit gets no clue.

A memory is opened once, its file fetched while the one before it is asked, and all prompts of its questions are decoded
together over it. Finished rows are recorded while the model decodes the rest, so a task that is killed repeats only the
rows that were being decoded.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.generators.generated import reply_of
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.generators.row_batches import batches
from memorag_pipeline.jobs.answers.memories_ahead import MemoriesAhead
from memorag_pipeline.jobs.answers.plans import RecallList
from memorag_pipeline.jobs.answers.question_file import BATCH, QuestionFile
from memorag_pipeline.jobs.answers.questions import question_identity
from memorag_pipeline.jobs.answers.recall_units import STAGE, RecallUnits
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.clues import parse_clues
from memorag_pipeline.machine.threads import TABLES
from memorag_pipeline.models.thoughts import spoken
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.schemas import CLUES
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.storage import Outcome

if TYPE_CHECKING:
    from memorag_pipeline.memory.engine.generation import Generation
    from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel


_RECORDED_EVERY = 30.0  # seconds; a killed task repeats what it has not recorded
_ROWS_ON_GPU = 64
logger = logging.getLogger(__name__)

Question = Sequence[str]  # id, text


def recall(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Recall the clues of the shards in a work list; returns counts."""
    batch = pipeline.read_work(batch_uri, RecallList)
    settings = batch.settings
    version = OpenedVersion(pipeline.store, batch.version, trust_models=True, pinned=True)
    names = RecallUnits(version.manifest, settings)
    questions = QuestionFile(pipeline.store, batch.questions)
    counts = {"shards": 0, "questions": 0, "clues": 0}
    with (
        MemoriesAhead(version, settings, [unit.shard_id for unit in batch.units]) as memories,
        track("questions recalled, by shard", sum(len(unit.rows) for unit in batch.units), "pairs") as bar,
    ):
        for unit in batch.units:
            with ShardRecall(memories, names, unit.shard_id, settings, batch.run, bar) as shard:
                for start in range(0, len(unit.rows), BATCH):
                    rows = unit.rows[start : start + BATCH]
                    shard.ask([row["question"] for row in questions.take(rows)])
            counts["shards"] += shard.questions > 0
            counts["questions"] += shard.questions
            counts["clues"] += shard.clues
    return counts


def recall_clues(
    model: MemoryModel[Any],
    memory: Memory,
    shard_id: str,
    questions: Sequence[Question],
    settings: AnswerSettings,
    advance: Callable[[float], None],
    on_recalled: Callable[[int, list[dict[str, Any]]], None] | None = None,
) -> pa.Table:
    """A table of `schemas.CLUES`. All prompts of all questions are decoded together over the one memory.

    `advance` receives the share of a question with each reply, `on_recalled` the number of a question whose clues are
    complete, and their rows.
    """
    kinds = settings.clues
    stream = model.stream
    setting = [stream.tokenizer.text(stream.opening), stream.tokenizer.text(stream.closing)]
    prompts = [[settings.prompts_for(text).recall(kind, text) for kind in kinds] for _, text in questions]
    replies: list[dict[int, Generation]] = [{} for _ in questions]
    recalled: dict[int, list[dict[str, Any]]] = {}

    def rows_of(number: int) -> Iterator[dict[str, Any]]:
        question_id, question = questions[number]
        for place, kind in enumerate(kinds):
            reply = replies[number].pop(place)
            if reply.error is not None:
                logger.warning("question %s: no %s from shard %s: %s", question_id, kind, shard_id, reply.error)
            said = spoken(reply.text, stream.tokenizer.opens_thought).text
            for clue in parse_clues(kind, said, question, [*setting, prompts[number][place]]):
                tokens = len(stream.tokenizer.plain(clue))
                yield {"question_id": question_id, "shard_id": shard_id, "kind": kind, "text": clue, "tokens": tokens}

    def finished(index: int, reply: Generation) -> None:
        number, place = divmod(index, len(kinds))
        replies[number][place] = reply
        advance(1 / len(kinds))
        if len(replies[number]) == len(kinds):
            recalled[number] = list(rows_of(number))
            if on_recalled is not None:
                on_recalled(number, recalled[number])

    texts = [prompt for group in prompts for prompt in group]
    _decode(model, memory, texts, settings, settings.clue_tokens, finished)
    rows = [row for number in range(len(questions)) for row in recalled.get(number, ())]
    return pa.Table.from_pylist(rows, schema=CLUES)


def answers_of_memory(
    model: MemoryModel[Any],
    memory: Memory,
    questions: Sequence[str],
    settings: AnswerSettings,
    on_answered: Callable[[int, Reply], None],
) -> None:
    """Answers that a memory writes by itself; `on_answered` receives the number of each question, and the answer."""

    most, opened = settings.generation.max_new_tokens, model.stream.tokenizer.opens_thought

    def finished(number: int, found: Generation) -> None:
        on_answered(number, reply_of(found, most, opened))

    texts = [settings.prompts_for(question).answer_from_memory(question) for question in questions]
    _decode(model, memory, texts, settings, most, finished)


def _decode(
    model: MemoryModel[Any],
    memory: Memory,
    texts: Sequence[str],
    settings: AnswerSettings,
    max_new_tokens: int,
    on_finished: Callable[[int, Generation], None],
) -> None:
    """Replies to prompts over a memory: greedy clues, or an answer with the spec's decoding settings.

    Prompts of similar length are decoded together, so one long question does not widen all rows.
    """
    from memorag_pipeline.memory.engine.generation import Decoding

    spec = settings.generation
    decoding = Decoding.of(spec) if settings.from_memory else Decoding(max_new_tokens)
    lengths = [len(model.stream.tokenizer.plain(text)) + max_new_tokens for text in texts]
    for rows, numbers in batches(lengths, _ask_rows(spec), spec.batch_tokens):
        chosen = sorted(numbers)  # so the prompts of a question end at about the same time

        def finished(index: int, reply: Generation, chosen: Sequence[int] = chosen) -> None:
            on_finished(chosen[index], reply)

        model.generate(memory, [texts[number] for number in chosen], decoding, finished, rows)


def _ask_rows(spec: GenerationSpec) -> int:
    """How many rows share a memory at a time: on a GPU a step of 64 rows takes little longer than one of 16."""
    import torch

    if spec.ask_rows is not None:
        return spec.ask_rows
    return max(spec.batch_size, _ROWS_ON_GPU) if torch.cuda.is_available() else spec.batch_size


class ShardRecall:
    """The questions of one shard: asks its memory what is missing, and records the results."""

    def __init__(
        self, memories: MemoriesAhead, names: RecallUnits, shard_id: str, settings: AnswerSettings, run: str, bar: Bar
    ) -> None:
        self.questions = self.clues = 0
        self._memories, self._names, self._shard_id, self._settings = memories, names, shard_id, settings
        self._store, self._replies, self._bar = memories.store, ReplyUnits(memories.store, run), bar
        self._opened: tuple[MemoryModel[Any], Memory] | None = None
        self._pool = ThreadPoolExecutor(TABLES)
        self._recorded: list[Future[Any]] = []
        self._done: dict[str, list[dict[str, Any]]] = {}
        self._since = time.perf_counter()

    def __enter__(self) -> ShardRecall:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the memory, and wait for records in progress, even if the model failed."""
        self._opened = None
        self._flush()
        self._pool.shutdown()
        for future in self._recorded:
            future.result()

    def ask(self, texts: Sequence[str]) -> None:
        """Recall what has not been recalled yet."""
        missing = [text for _, text in self._names.missing(self._store, [(self._shard_id, text) for text in texts])]
        self._bar.advance(len(texts) - len(missing))
        if not missing:
            return
        model, memory = self._model_and_memory()
        self.questions += len(missing)
        if self._settings.from_memory:
            answers_of_memory(
                model, memory, missing, self._settings, lambda n, reply: self._answered(missing[n], reply)
            )
            return
        asked = [(question_identity(text), text) for text in missing]
        recall_clues(
            model,
            memory,
            self._shard_id,
            asked,
            self._settings,
            self._bar.advance,
            lambda number, rows: self._recalled(missing[number], rows),
        )

    def _model_and_memory(self) -> tuple[MemoryModel[Any], Memory]:
        if self._opened is None:
            self._opened = self._memories.open(self._shard_id)
            self._since = time.perf_counter()
        return self._opened

    def _answered(self, question: str, reply: Reply) -> None:
        self._bar.advance(1)
        key = self._names.fingerprint((self._shard_id, question))
        self._recorded.append(self._pool.submit(self._replies.record, key, reply))

    def _recalled(self, question: str, rows: list[dict[str, Any]]) -> None:
        self.clues += len(rows)
        self._done[question] = rows
        waited = time.perf_counter() - self._since
        if len(self._done) >= self._settings.generation.batch_size or waited >= _RECORDED_EVERY:
            self._flush()

    def _flush(self) -> None:
        """Record the finished questions in one blob."""
        if self._done:
            seconds = (time.perf_counter() - self._since) / len(self._done)
            self._recorded.append(self._pool.submit(self._record, self._done, seconds))
            self._done, self._since = {}, time.perf_counter()

    def _record(self, done: dict[str, list[dict[str, Any]]], seconds: float) -> None:
        table = pa.Table.from_pylist(list(itertools.chain(*done.values())), schema=CLUES)
        blobs = {"clues": self._store.blobs.put_table(table)}
        for question, rows in done.items():
            key = self._names.fingerprint((self._shard_id, question))
            self._store.units.record(
                Outcome(stage=STAGE, fingerprint=key, blobs=blobs, counts={"clues": len(rows)}, seconds=seconds)
            )
