"""Bulk summarization against one document after the other, and what memories made for the occasion cost.

In:  topics of the Python language reference, cut into documents of two lengths: most fit into the generator's budget
     and are read whole, every tenth is longer and is recalled. All lie in shards of several documents.
Out: documents a minute of a job of kind summaries, beside `Version.summarize` for one document after the other; the
     share of the job's time that is spent in models; the share of it that goes into memories made for the occasion.

    python -m benchmarks.summaries --documents 100 --alone 20 --append benchmarks/results/DEVICE.jsonl

The load into the warehouse is part of the job. The first `--alone` documents are enough for the slower
side; of a multiple of ten a tenth is long, as of all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any
from unittest.mock import patch

from benchmarks.figures import Figure, Report
from benchmarks.timing import device_name, seconds_of
from memorag_pipeline import runner
from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.retrieval.search import Searcher
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.version import Version

SHORT, LONG, EACH = 1200, 6000, 10  # characters; every tenth is long


def main() -> None:
    """Measure, and report."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="memorag-summaries-") as folder:
        pipeline = _pipeline(Path(folder), arguments)
        runner.refresh(pipeline, "benchmark")
        version = Version(pipeline.store, 1, trust_models=True)
        uris = sorted(row["uri"] for row in version.documents())
        version.summarize(uris[0])  # models are loaded
        alone = uris[: arguments.alone]
        with _timed(pipeline) as spent:
            seconds = seconds_of(lambda: runner.summarize(pipeline, "each"))
        in_models = dict(spent)
        slow = seconds_of(lambda: [version.summarize(uri) for uri in alone])
        report = Report("summaries", {"device": device_name()}, arguments.append)
        _report(report, arguments, len(uris), seconds, in_models, slow / len(alone))


def _report(
    report: Report, arguments: argparse.Namespace, documents: int, seconds: float, spent: dict[str, float], alone: float
) -> None:
    def add(row: str, what: str, value: float, unit: str, against: str, baseline: float, **more: Any) -> None:
        report.add(Figure(row, what, arguments.dtype, 0, 0, value, unit, against, baseline, **more))

    note = f"{documents} documents, every {EACH}th long"
    add("rate", "summarized", 60 * documents / seconds, "documents/min", "one by one", 60 / alone, note=note)
    add("model", "in models", sum(spent.values()), "s", "the whole job", seconds, target=0.85, note=note)
    memorized = spent["extend_many"]
    add("own", "memories of their own", memorized, "s", "the whole job", seconds, at_most=True, note=note)


@contextmanager
def _timed(pipeline: Pipeline) -> Iterator[dict[str, float]]:
    """Seconds in the calls that run a model, by name."""
    spent = dict.fromkeys(("reply", "generate", "extend_many", "embed"), 0.0)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return measured

    memory = type(load_memory_model(pipeline.spec.memory, pipeline.spec.language))
    with ExitStack() as stack:
        for owner, name in (
            (LocalGenerator, "reply"),
            (memory, "generate"),
            (memory, "extend_many"),
            (Searcher, "embed"),
        ):
            stack.enter_context(patch.object(owner, name, timed(name, getattr(owner, name))))
        yield spent


def _pipeline(folder: Path, arguments: argparse.Namespace) -> Pipeline:
    source = folder / "source"
    source.mkdir()
    text = "\n\n".join(topics[name] for name in sorted(topics))
    place = 0
    for number in range(arguments.documents):
        size = LONG if number % EACH == EACH - 1 else SHORT
        piece = "".join((text * 3)[place : place + size])
        (source / f"report-{number:04}.txt").write_text(f"Report {number}\n\n{piece}", encoding="utf-8")
        place = (place + size) % len(text)
    summaries = {"recall_tokens": arguments.tokens, "summary_tokens": arguments.tokens}
    return Pipeline(
        CorpusSpec.model_validate(
            {
                "corpus": "reports",
                "source": {"uris": [str(source)]},
                "store": {"uri": str(folder / "store")},
                "sharding": {"max_tokens": 4096, "min_tokens": 1024},
                "memory": {"kind": "selected", "model": arguments.model, "dtype": arguments.dtype, "window": 512},
                "embedding": {"model": arguments.embedding, "pooling": "mean"},
                "generation": {"evidence_tokens": 512, "dtype": arguments.dtype},
                "jobs": {
                    "each": {
                        "kind": "summaries",
                        "summaries": summaries,
                        "warehouse": {"database": str(folder / "warehouse.duckdb")},
                    }
                },
            }
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100, help="documents that the job summarizes")
    parser.add_argument("--alone", type=int, default=20, help="those that are summarized one by one, too")
    parser.add_argument("--tokens", type=int, default=64, help="of a summary, and of what a memory recalls")
    parser.add_argument("--model", default="package:smollm2-135m-instruct", help="memory model and generator")
    parser.add_argument("--embedding", default="package:all-minilm-l6-v2", help="embedding model")
    parser.add_argument("--dtype", default="float32", help="number format of model and memory")
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
