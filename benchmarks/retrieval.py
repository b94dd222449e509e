"""What finds the evidence: vectors, words (BM25), or both fused; and in which order a small model reads it best.

Row `sizes`: chunks of the documentation site of ../shared/data/kb, and how many of them hold next to nothing.

Row `search`: all texts of a set of ../shared/data/eval in one index, cut into chunks as the pipeline does. Evidence
recall@k is the share of the evidence's characters that the first k passages cover, mean over questions. The vectors
are those of all-MiniLM-L6-v2, an English model: on the Chinese sets they say what a wrong model costs.

Row `order`: SmolLM2-135M-Instruct answers from the four best passages of both, read in each order. Token F1 is that of
the answer of a question that is hit best, mean over questions.

One line of JSON for each set. Run: python -m benchmarks.retrieval
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.knowledge_base import read_days
from memorag_pipeline.corpus.chunk import Chunker
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.text import read_text
from memorag_pipeline.digests import text_digest
from memorag_pipeline.evaluation.evidence_recall import evidence_recall, find_places
from memorag_pipeline.evaluation.recall_quality import EMBEDDING, ContextQuestion, read_questions
from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.jobs.answers.retrieve import reading_order
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.retrieval.evidence import choose
from memorag_pipeline.retrieval.faiss_index import build_index, write_index
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.retrieval.search import IndexSegments, Searcher, open_searcher
from memorag_pipeline.retrieval.segment import SegmentFiles, open_segment
from memorag_pipeline.retrieval.segment_rows import RowTable
from memorag_pipeline.retrieval.sparse_index import SparseIndex, build_sparse_index
from memorag_pipeline.retrieval.sparse_search import SparseSearch
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import IndexSpec, RetrievalSpec
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "eval"
SETS = ("xquad_en", "covidqa", "cmrc", "drcd")
MODEL = "package:smollm2-135m-instruct"
KS = (1, 3, 5)
ROWS = ("sizes", "search", "order")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the sets and print their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.retrieval"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--questions", type=int, default=1000, help="of a set, from the first")
    parser.add_argument("--min-tokens", type=int, default=ChunkingSpec().min_tokens, help="least size of a chunk")
    given = parser.parse_args(argv)
    chunking = ChunkingSpec(min_tokens=given.min_tokens)
    if "sizes" in given.only:
        print(json.dumps({"benchmark": "retrieval", "row": "sizes", "least": given.min_tokens, **_sizes(chunking)}))
    for name in given.sets:
        path = FOLDER / f"{name}.dev.jsonl"
        questions = read_questions(path, given.questions)
        with tempfile.TemporaryDirectory() as folder:
            corpus = _Corpus({question.context_id: question.context for question in questions}, chunking, Path(folder))
            if "search" in given.only:
                _print("search", name, questions, {"chunks": len(corpus.rows), **_recalls(corpus, questions)})
            if "order" in given.only and questions[0].language == "en":
                _print("order", name, questions, _orders(corpus.hybrid, questions, _answers(path)))


def _print(row: str, name: str, questions: Sequence[ContextQuestion], figures: dict[str, Any]) -> None:
    print(json.dumps({"benchmark": "retrieval", "row": row, "set": name, "questions": len(questions), **figures}))


def document_chunker(chunking: ChunkingSpec) -> Chunker:
    """A chunker as in the pipeline."""
    counter = token_counter(resolve(EMBEDDING.model))
    capacity = min(chunking.max_tokens, EMBEDDING.max_tokens - counter.special_tokens)
    return Chunker(chunking, ShardingSpec(), counter, token_counter(resolve(MODEL)), capacity)


def _sizes(chunking: ChunkingSpec) -> dict[str, int]:
    """How many chunks of a documentation site say little."""
    chunker, parser = document_chunker(chunking), Parser(max_pages=5000, max_characters=20_000_000)
    lengths = [
        len(chunk.text)
        for path, data in read_days()[0].items()
        for document in [read_text(path, data, "en", parser, 1 << 26, 200)]
        for chunk in chunker.cut(path, document.text, document.is_markdown, document.headings)
    ]
    return {"chunks": len(lengths)} | {f"under {most} characters": sum(n < most for n in lengths) for most in (10, 40)}


class _Corpus:
    """Texts in an index of vectors, one of words, and both."""

    def __init__(self, texts: dict[str, str], chunking: ChunkingSpec, folder: Path) -> None:
        chunker = document_chunker(chunking)
        chunks = [(uri, chunk) for uri, text in texts.items() for chunk in chunker.cut(uri, text, markdown=False)]
        distinct = {chunk.text: number for number, (_, chunk) in reversed(list(enumerate(chunks)))}
        numbers = {text: number for number, text in enumerate(sorted(distinct, key=lambda text: distinct[text]))}
        embedder = load_embedder(EMBEDDING)
        vectors = embedder.embed_passages(list(numbers))
        write_index(
            build_index(IndexSpec(factory="Flat"), embedder.dimensions, len(numbers), lambda: [vectors]),
            folder / "index",
        )
        build_sparse_index(numbers, folder / "sparse")
        table = pa.table(
            {
                "chunk_id": [text_digest(f"{uri} {chunk.start}") for uri, chunk in chunks],
                "document_id": [uri for uri, _ in chunks],
                "uri": [uri for uri, _ in chunks],
                "start": [chunk.start for _, chunk in chunks],
                "end": [chunk.end for _, chunk in chunks],
                "text": [chunk.text for _, chunk in chunks],
            }
        )
        places = np.arange(len(chunks), dtype=np.int32)
        texts = np.array([numbers[chunk.text] for _, chunk in chunks], np.int32)
        rows = RowTable.of_columns(texts, np.zeros_like(places), places)

        def searcher(sparse: Path | None) -> Searcher:
            files = SegmentFiles(folder / "index", rows=lambda: rows, tables=(0,), sparse=sparse)
            chunks_of = lambda _, columns: table.select(columns)  # noqa: E731
            return open_searcher(
                IndexSegments([partial(open_segment, files)]),
                chunks_of,
                lambda *_: "",
                EMBEDDING,
                embedder.model_digest,
                "",
            )

        self.dense, self.hybrid = searcher(None), searcher(folder / "sparse")
        self._sparse = SparseSearch([SparseIndex(folder / "sparse")])

    def by_words(self, question: str, k: int) -> list[Passage]:
        """The passages that the index of words alone finds."""
        ((rows, scores),) = self._sparse.search(question, k, [None])
        return self.dense._passages(self.dense._merged([list(zip(rows.tolist(), scores.tolist(), strict=True))], k))


def _recalls(corpus: _Corpus, questions: Sequence[ContextQuestion]) -> dict[str, Any]:
    asked = [question.question for question in questions]
    k = max(KS)
    by_words = [corpus.by_words(question, k) for question in asked]
    found = {"dense": corpus.dense.search(asked, k), "bm25": by_words, "hybrid": corpus.hybrid.search(asked, k)}
    places = [
        [find_places(span, {question.context_id: question.context}) for span in question.evidence]
        for question in questions
    ]
    return {
        f"{way} recall@{k}": round(
            statistics.mean(evidence_recall(spans, passages[:k]) for spans, passages in zip(places, hits, strict=True)),
            3,
        )
        for way, hits in found.items()
        for k in KS
    }


def _orders(
    searcher: Searcher, questions: Sequence[ContextQuestion], answers: dict[str, list[str]]
) -> dict[str, float]:
    generation = GenerationSpec(model=MODEL, dtype="float32", max_new_tokens=40)
    generator = LocalGenerator(generation)
    found = [
        choose(hits, 4, generator.count_tokens, generation.evidence_tokens)
        for hits in searcher.search([question.question for question in questions], 8)
    ]
    figures = {}
    for order in ("best_last", "document"):
        settings = AnswerSettings(
            language="en",
            memory=MemorySpec(model=MODEL),
            generation=generation,
            generation_digest="",
            retrieval=RetrievalSpec.model_validate({"order": order}),
        )
        replies = generator.reply([_asked(*each, settings) for each in zip(questions, found, strict=True)])
        pairs = [
            (reply.text, answers[question.question_id]) for question, reply in zip(questions, replies, strict=True)
        ]
        figures[f"{order} F1"] = round(statistics.mean(_f1(*pair) for pair in pairs), 3)
        figures[f"{order} holds an answer"] = round(statistics.mean(_holds(*pair) for pair in pairs), 3)
        figures[f"{order} with a marker"] = round(
            statistics.mean(bool(re.search(r"\[\d\]", text)) for text, _ in pairs), 3
        )
    return figures


def _asked(question: ContextQuestion, passages: Sequence[Passage], settings: AnswerSettings) -> list[dict[str, str]]:
    texts = [passage.text for passage in reading_order(passages, settings)]
    return load_prompts("en").answer(question.question, texts)


def _answers(path: Path) -> dict[str, list[str]]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: row["answers"] for row in rows}


def _f1(text: str, answers: Sequence[str]) -> float:
    return max(map(lambda answer: _overlap(_words(text), _words(answer)), answers), default=0.0)


def _overlap(said: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def _holds(text: str, answers: Sequence[str]) -> bool:
    return any(" ".join(_words(answer)) in " ".join(_words(text)) for answer in answers if _words(answer))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"\[\d+\]", "", text.casefold()))


if __name__ == "__main__":
    main()
