"""Speed of an answers job, compared with the same questions one by one through the same engine, and its memory.

| row    | measured                                      | against                                         | target  |
|--------|-----------------------------------------------|-------------------------------------------------|---------|
| rate   | questions/min of a job, load included         | `Version.answer` of some of them, one at a time | >= 6    |
| stage  | seconds of each stage                         | the whole job                                   |         |
| model  | seconds in the layers of the models           | the whole job                                   | >= 0.85 |
| memory | peak RSS of a job over `--many` questions     | over `--questions`, each in its own process     | <= 1.1  |

The corpus are the beginnings of English contexts of ../shared/data/eval, one to a shard; the questions are those asked
of them, and of the others. The rows `memory` run on random models of one layer: what grows with the number of
questions is not in the model. Questions asked one at a time find model, index and memories open. Clues, evidence and
answers are as long as a spec has them by default, those of the rows `memory` short.

Run on an idle machine: python -m benchmarks.jobs
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, Report
from benchmarks.timing import device_name, seconds_of
from benchmarks.tiny_models import EMBEDDING_MODEL, MEMORY_MODEL, tiny_embedding_model, tiny_memory_model
from memorag_pipeline import runner
from memorag_pipeline.jobs.answers.ask import answer_questions
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.retrieval.embedder import Embedder
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.version import Version

DATA = Path(__file__).parents[2] / "shared" / "data" / "eval"
SETS = ("covidqa", "xquad_en", "squality", "qmsum")
RATE, SHARE, GROWTH = 6.0, 0.85, 1.1


def main() -> None:
    """Run what the command line asks for."""
    given = _arguments()
    if given.peak is not None:
        print(json.dumps({"peak": _peak(given, given.peak)}))
        return
    torch.set_num_threads(given.threads)
    report = Report("jobs", {"device": device_name(), "threads": given.threads}, given.append)
    if given.only in (None, "job"):
        _job(given, report)
    if given.only in (None, "memory"):
        _memory(given, report)


def _job(given: argparse.Namespace, report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = _pipeline(Path(folder), given, given.questions)
        runner.refresh(pipeline, "benchmark")
        version = Version(pipeline.store, 1, trust_models=True)
        shards = len(version.manifest.of_role("memory"))
        settings = AnswerSettings.of_job(pipeline.spec, pipeline.spec.job("faq"), version.manifest)
        asked = list(itertools.islice(_questions(), given.alone + 1))
        answer_questions(version, asked[:1], settings)  # opens model and index
        alone = sum(seconds_of(lambda text=text: answer_questions(version, [text], settings)) for text in asked[1:])
        with _timed_models() as in_models:
            started = time.perf_counter()
            result = runner.answer(pipeline, "faq")
            seconds = time.perf_counter() - started

    def figure(row: str, what: str, value: float, unit: str, against: str, baseline: float, **more: Any) -> None:
        dtype, tokens = pipeline.spec.generation.dtype, pipeline.spec.generation.max_new_tokens
        report.add(Figure(row, what, dtype, tokens, shards, value, unit, against, baseline, **more))

    per_minute = 60 * given.questions / seconds
    note = f"{given.questions} questions, {shards} shards; alone {given.alone}"
    figure(
        "rate", "job", per_minute, "questions/min", "one at a time", 60 * given.alone / alone, target=RATE, note=note
    )
    for stage, taken in result.seconds.items():
        figure("stage", stage, taken, "s", "the whole job", seconds)
    figure("model", "in the models", in_models(), "s", "the whole job", seconds, target=SHARE)


def _memory(given: argparse.Namespace, report: Report) -> None:
    few, many = (_peak_of_child(given, count) for count in (given.questions, given.many))
    what, against = f"peak of {given.many} questions", f"of {given.questions}"
    report.add(
        Figure(
            "memory", what, "float32", 0, 0, many, "MiB", against, few, target=GROWTH, at_most=True, note="tiny models"
        )
    )


def _peak_of_child(given: argparse.Namespace, count: int) -> float:
    """The peak memory, in MiB, of a process that answers this many questions."""
    command = [sys.executable, "-m", "benchmarks.jobs", "--peak", str(count), "--contexts", str(given.contexts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def _peak(given: argparse.Namespace, count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = {
            "memory": {"model": str(tiny_memory_model(root / "memory")), "dtype": "float32"},
            "embedding": {"model": str(tiny_embedding_model(root / "embedding"))},
        }
        pipeline = _pipeline(root, given, count, models)
        runner.refresh(pipeline, "benchmark")
        runner.answer(pipeline, "faq")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _pipeline(
    root: Path, given: argparse.Namespace, count: int, models: dict[str, dict[str, Any]] | None = None
) -> Pipeline:
    """A corpus of `contexts` documents in as many shards, and a job of `count` questions."""
    (root / "source").mkdir()
    chosen = list(itertools.islice(_contexts(), given.contexts))
    for number, text in enumerate(chosen):
        (root / "source" / f"{number:03}.txt").write_text(text[: given.characters], encoding="utf-8")
    lines = (json.dumps({"question_id": f"q{n}", "question": text}) for n, text in enumerate(_questions(), 1))
    (root / "questions.jsonl").write_text("\n".join(itertools.islice(lines, count)), encoding="utf-8")
    tokens = given.characters // 3
    chosen_models = models or {"memory": {"model": MEMORY_MODEL}, "embedding": {"model": EMBEDDING_MODEL}}
    brief = {"max_new_tokens": 8, "evidence_tokens": 256} if models else {}
    spec: dict[str, Any] = {
        "corpus": "benchmark",
        "source": {"uris": [str(root / "source")]},
        "store": {"uri": str(root / "store")},
        "sharding": {"max_tokens": tokens, "min_tokens": tokens // 4},
        "memory": {"kind": "full", "window": 256, **chosen_models["memory"]},
        "embedding": {"pooling": "mean", **chosen_models["embedding"]},
        "generation": {"batch_size": given.batch, **brief},
        "jobs": {
            "faq": {
                "questions": {"uri": str(root / "questions.jsonl")},
                "warehouse": {"database": str(root / "answers.duckdb")},
                **({"clue_tokens": 8} if models else {}),
            }
        },
    }
    return Pipeline(CorpusSpec.model_validate(spec))


def _contexts() -> Iterator[str]:
    for name in SETS:
        for path in sorted((DATA / "contexts").glob(f"{name}*.txt")):
            yield path.read_text(encoding="utf-8")


def _questions() -> Iterator[str]:
    """The questions of all sets, and when they are used up the same with a number."""
    known = [
        json.loads(line)["question"]
        for name in SETS
        for line in (DATA / f"{name}.dev.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    yield from known
    for number in itertools.count(2):
        yield from (f"{text} (part {number})" for text in known)


@contextlib.contextmanager
def _timed_models() -> Iterator[Callable[[], float]]:
    """Seconds that are spent in the layers and heads of all models within the context."""
    spent, originals = 0.0, [(Network, "run"), (Network, "logits"), (Embedder, "_forward")]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            found = call(*arguments, **named)
            spent += time.perf_counter() - started
            return found

        return wrapped

    kept = [(owner, name, getattr(owner, name)) for owner, name in originals]
    for owner, name, call in kept:
        setattr(owner, name, timed(call))
    try:
        yield lambda: spent
    finally:
        for owner, name, call in kept:
            setattr(owner, name, call)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["job", "memory"])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=10, help="questions asked one at a time")
    parser.add_argument("--contexts", type=int, default=10, help="documents, each a shard of its own")
    parser.add_argument("--characters", type=int, default=3000, help="of a document")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
