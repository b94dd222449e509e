"""Whether what a memory recalls helps to find the evidence for a question on a long text.

In:  questions, each with its context and its evidence, spans that occur in the context word for word; a memory model.
Out: a `RecallQuality`: how often a clue hits the evidence, and evidence recall of searches without and with clues.
Wrong: a set without files is a `NotFoundError`; no question that fits the model is a `ValueError`.

Words are casefolded runs of letters and digits; each Chinese character is a word of its own. A clue *hits* the evidence
if it has a run of five words (all of them, in evidence that has fewer) in common with one of its spans, and the
question does not have that run.

Chunks are searched as jobs do it, with the question alone and with the question and its clues. Evidence recall@k is the
share of the evidence's characters that the first k passages cover, mean over questions; if a span occurs in the context
several times, the place that is covered best counts. (Ranks are fused so that the question's own first passage stays
first, so clues cannot change recall@1.)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from memorag_pipeline.corpus.chunk import Chunker
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.evaluation.evidence_recall import evidence_recall, find_places
from memorag_pipeline.jobs.answers.recall import recall_clues
from memorag_pipeline.jobs.answers.retrieve import retrieve_evidence
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.memory.kinds.beacon import WindowedMemoryModel
from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.retrieval.faiss_index import build_index
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.retrieval.search import Searcher
from memorag_pipeline.retrieval.segment import Segment, SegmentFiles
from memorag_pipeline.retrieval.segment_rows import RowTable
from memorag_pipeline.specs.answer_kinds import ClueKind
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec, IndexSpec
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.words import words_of

AT = (1, 3, 5)
EMBEDDING = EmbeddingSpec(model="package:all-minilm-l6-v2", pooling="mean")
_RUN = 5
_CONTEXT = ""  # id of the one document
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class ContextQuestion:
    """A question on a text. Each of `evidence` is a substring of `context`."""

    question_id: str
    set: str
    context_id: str
    context: str
    question: str
    evidence: tuple[str, ...]
    language: Language


@dataclass(frozen=True)
class RecallAt:
    """Evidence recall of the first `k` passages, searched with the question alone and with its clues as well."""

    k: int
    question: float
    with_clues: float


@dataclass(frozen=True)
class RecallQuality:
    """Figures of a set. `left_out` questions have contexts longer than the model's; `clues` are per question."""

    set: str
    questions: int
    left_out: int
    clues: float
    hits: float
    recall: tuple[RecallAt, ...]


def read_questions(path: Path, count: int) -> list[ContextQuestion]:
    """The first `count` questions with evidence in a file of lines of JSON, with their texts in contexts/ beside it."""
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such set of questions; correct the path")
    found: list[ContextQuestion] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if len(found) == count:
                break
            if row["evidence"]:
                found.append(
                    ContextQuestion(
                        question_id=row["id"],
                        set=row["set"],
                        context_id=row["context_id"],
                        context=_context(path.parent / "contexts" / f"{row['context_id']}.txt"),
                        question=row["question"],
                        evidence=tuple(row["evidence"]),
                        language="zh" if row["language"].startswith("zh") else "en",
                    )
                )
    return found


def recall_quality(
    model: WindowedMemoryModel,
    questions: Sequence[ContextQuestion],
    embedding: EmbeddingSpec = EMBEDDING,
    clues: Sequence[ClueKind] = ("spans",),
    clue_tokens: int = 64,
) -> RecallQuality:
    """Memorize the contexts of one set, recall clues for its questions, and search with and without them."""
    by_context: dict[str, list[ContextQuestion]] = {}
    for question in questions:
        by_context.setdefault(question.context_id, []).append(question)
    counts, hits = list[int](), list[bool]()
    recalled: dict[int, list[tuple[float, float]]] = {k: [] for k in AT}
    for group in by_context.values():
        stream = [*model.stream.opening, *model.stream.section(group[0].context_id, None, group[0].context)]
        if len(stream) > model.language_model.context:
            continue
        settings = _settings(model, group[0].language, clues, clue_tokens)
        found = _clues(model, stream, group, settings)
        counts += [len(texts) for texts in found]
        hits += [
            any(hits_evidence(text, question.evidence, question.question) for text in texts)
            for question, texts in zip(group, found, strict=True)
        ]
        searcher = _searcher(model, group[0].context, embedding)
        asked = [question.question for question in group]
        alone = retrieve_evidence(searcher, asked, [[]] * len(asked), settings, len)
        helped = retrieve_evidence(searcher, asked, found, settings, len)
        for question, without, with_clues in zip(group, alone, helped, strict=True):
            for k, pairs in recalled.items():
                pairs.append((covered(question, without[:k]), covered(question, with_clues[:k])))
    if not counts:
        raise ValueError(
            f"none of {len(questions)} questions is on a text that fits the context of {model.origin.model}"
        )
    return RecallQuality(
        set=questions[0].set,
        questions=len(counts),
        left_out=len(questions) - len(counts),
        clues=statistics.mean(counts),
        hits=float(statistics.mean(hits)),
        recall=tuple(
            RecallAt(k, *(statistics.mean(side) for side in zip(*pairs, strict=True))) for k, pairs in recalled.items()
        ),
    )


def hits_evidence(clue: str, evidence: Sequence[str], question: str) -> bool:
    """Whether a clue has a run of words with the evidence in common that the question does not have."""
    said, known = words_of(clue), words_of(question)
    for span in map(words_of, evidence):
        size = min(_RUN, len(span))
        if size and (set(_runs(span, size)) & set(_runs(said, size))) - set(_runs(known, size)):
            return True
    return False


def covered(question: ContextQuestion, passages: Sequence[Passage]) -> float:
    """Share of the evidence's characters that passages of its context cover."""
    return evidence_recall([find_places(span, {_CONTEXT: question.context}) for span in question.evidence], passages)


def _clues(
    model: WindowedMemoryModel, stream: Sequence[int], group: Sequence[ContextQuestion], settings: AnswerSettings
) -> list[list[str]]:
    """The clues of each question, from the memory of their context."""
    asked = [(question.question_id, question.question) for question in group]
    table = recall_clues(model, model.memorize(stream), "", asked, settings, lambda _: None)
    found: dict[str, list[str]] = {question_id: [] for question_id, _ in asked}
    for row in table.to_pylist():
        found[row["question_id"]].append(row["text"])
    return [found[question_id] for question_id, _ in asked]


def _settings(
    model: WindowedMemoryModel, language: Language, clues: Sequence[ClueKind], clue_tokens: int
) -> AnswerSettings:
    """As in a job that takes as many passages as are scored here; nothing is generated."""
    return AnswerSettings(
        language=language,
        memory=MemorySpec(model=model.language_model.resolved.name),
        generation=GenerationSpec(evidence_tokens=_NO_LIMIT),
        generation_digest="",
        clues=tuple(clues),
        clue_tokens=clue_tokens,
        evidence=max(AT),
    )


def _searcher(model: WindowedMemoryModel, context: str, embedding: EmbeddingSpec) -> Searcher:
    """An index over the chunks of one text."""
    resolved, chunking = resolve(embedding.model, embedding.revision), ChunkingSpec()
    counter = token_counter(resolved)
    capacity = min(chunking.max_tokens, embedding.max_tokens - counter.special_tokens)
    memory = token_counter(model.language_model.resolved)
    chunks = Chunker(chunking, ShardingSpec(), counter, memory, capacity).cut("", context, markdown=False)
    embedder = load_embedder(embedding)
    vectors = embedder.embed_passages([chunk.text for chunk in chunks])
    index = build_index(IndexSpec(factory="Flat"), embedder.dimensions, len(chunks), lambda: [vectors])
    numbers = np.arange(len(chunks), dtype=np.int32)
    rows = RowTable.of_columns(numbers, np.zeros_like(numbers), numbers)
    table = pa.table(
        {
            "chunk_id": [chunk.chunk_id for chunk in chunks],
            "document_id": [_CONTEXT] * len(chunks),
            "uri": [""] * len(chunks),
            "start": [chunk.start for chunk in chunks],
            "end": [chunk.end for chunk in chunks],
            "text": [chunk.text for chunk in chunks],
        }
    )
    return Searcher(
        [Segment(index, SegmentFiles(Path("context"), rows=lambda: rows, tables=(0,)))],
        lambda _, columns: table.select(columns),
        lambda *_: "",
        embedding,
        embedder.model_digest,
        "the context of the questions",
    )


def _context(path: Path) -> str:
    if not path.is_file():
        raise NotFoundError(f"{path}: a question is on this text, but it is not there; put it there")
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + size]) for start in range(len(words) - size + 1))
