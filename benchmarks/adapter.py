"""An adapter beside the selections that need no training, in everything that a memory is asked for.

Gap closed at ratios 2 to 16, whole and by position; needles by the length of the stream and their depth; clues and
evidence recall for questions. Texts are those of `benchmarks.quality`, which no adapter has seen, questions those of
../shared/data/eval. Everything is measured by `memorag_pipeline.evaluation.evaluate`, as after a training, and the same
report is written. A line of JSON holds the whole. Run: python -m benchmarks.adapter --out /tmp/adapter
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.figures import Report
from benchmarks.quality import TEXT, documents
from benchmarks.subjects import ADAPTER_SINK, ADAPTER_WINDOW, MODEL, load
from benchmarks.timing import device_name
from memorag_pipeline.evaluation.adapter import RATIOS, Evaluation, evaluate_adapter
from memorag_pipeline.evaluation.memories import AdapterUnderTest
from memorag_pipeline.evaluation.needles import NeedleTask
from memorag_pipeline.evaluation.recall_quality import ContextQuestion, read_questions
from memorag_pipeline.evaluation.report import write_report
from memorag_pipeline.models.references import resolve_file

QUESTIONS = TEXT.parents[2] / "eval"


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate one adapter; print its tables and write its report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.adapter"
    )
    parser.add_argument("--adapter", default="package:smollm2-135m-beacon")
    parser.add_argument("--window", type=int, default=ADAPTER_WINDOW)
    parser.add_argument("--ratios", nargs="+", type=int, default=list(RATIOS))
    parser.add_argument("--closer-ratios", nargs="+", type=int, default=[4], help="for needles and questions")
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--lengths", nargs="*", type=int, default=[1024, 2048], help="of streams with needles")
    parser.add_argument("--trials", type=int, default=4, help="needles of each length and depth")
    parser.add_argument("--sets", nargs="*", default=["covidqa", "xquad_en"])
    parser.add_argument("--questions", type=int, default=20, help="of each set")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for the HTML report")
    parser.add_argument("--append", type=Path, help="file that the line of JSON is appended to")
    given = parser.parse_args(argv)
    if not TEXT.exists() or not QUESTIONS.is_dir():
        print(f"skipped: there is no {TEXT} or no {QUESTIONS}", file=sys.stderr)
        return
    torch.set_num_threads(given.threads)
    model = load(MODEL, given.dtype)
    started = time.perf_counter()
    evaluation = evaluate_adapter(
        AdapterUnderTest(model, resolve_file(given.adapter), given.window, ADAPTER_SINK),
        documents(model, given.texts),
        given.ratios,
        needles=NeedleTask(lengths=tuple(given.lengths), trials=given.trials) if given.lengths else None,
        questions=_questions(given.sets, given.questions),
        closer_ratios=given.closer_ratios,
    )
    _print(evaluation)
    common = {"device": device_name(), "torch": torch.__version__, "threads": given.threads, "cores": os.cpu_count()}
    seconds = round(time.perf_counter() - started, 1)
    Report("adapter", common, given.append).write({"benchmark": "adapter", "seconds": seconds, **asdict(evaluation)})
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        write_report(given.out / "report.html", evaluation, (), {}, given.adapter)


def _questions(sets: Sequence[str], count: int) -> list[ContextQuestion]:
    return [question for name in sets for question in read_questions(QUESTIONS / f"{name}.dev.jsonl", count)]


def _print(evaluation: Evaluation) -> None:
    for row in evaluation.memories:
        error = "" if row.gap.standard_error is None else f" ± {row.gap.standard_error:.1%}"
        by_position = " ".join(f"{share:.0%}" for share in row.gap.by_position)
        other = "" if row.of_other is None else f", by another text's memory {row.of_other:.1%}"
        _line(row.memory, row.ratio, f"gap closed {row.gap.closed:.1%}{error}, by position {by_position}{other}")
    for needles in evaluation.needles:
        for cell in needles.cells:
            closed = "" if cell.gap_closed is None else f", gap closed {cell.gap_closed:.0%}"
            place = f"{cell.tokens:,} tokens, depth {cell.depth:.1f}"
            _line(needles.memory, needles.ratio, f"{place}: right {cell.accuracy:.0%}{closed}")
    for recalled in evaluation.recall:
        quality = recalled.quality
        recall = ", ".join(f"@{at.k} {at.with_clues:.1%} (question alone {at.question:.1%})" for at in quality.recall)
        counted = f"{quality.questions} questions of {quality.set}, {quality.left_out} left out"
        _line(recalled.memory, recalled.ratio, f"{counted}: hits {quality.hits:.1%}, evidence recall {recall}")


def _line(memory: str, ratio: int, text: str) -> None:
    print(f"{memory:<10} ratio {ratio:<3} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
