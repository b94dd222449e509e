"""Ways to train beacons compared: the share of the gap that each has closed after some tokens.

All arms read the same sequences in the same order, and are measured on the same eight held-out texts; they differ from
the first one in what the table says. The share is that of `memorag_pipeline.evaluation.gap`; tokens/s tell what a token
costs. Run on an idle machine: python -m benchmarks.training_arms
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Report
from benchmarks.quality import TEXT
from benchmarks.subjects import MODEL
from benchmarks.timing import device_name
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.training.plans import TrainedAdapter
from memorag_pipeline.training.prepare import prepare
from memorag_pipeline.training.train import train
from memorag_pipeline.training.training import Training

ARMS: dict[str, dict[str, Any]] = {
    "attended": {"placement": "attended"},
    "copy": {},
    "newline": {"start": "newline"},
    "mean": {"start": "mean"},
    "eos": {"start": "eos"},
    "copy, all distilled": {"distillation": 1.0},
    "copy, half distilled": {"distillation": 0.5},
    "copy, rank 64": {"rank": 64},
    "copy, o as well": {"projections": ("q", "k", "v", "o")},
    "copy, learning rate 5e-4": {"schedule": {"learning_rate": 5e-4}},
    "copy, sink 0": {"sink": 0},
}
TEXTS = TEXT.parent


def main(argv: Sequence[str] | None = None) -> None:
    """Train each arm and print its curve."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.training_arms",
    )
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--tokens", type=int, default=40_960)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    files = sorted(str(path) for path in TEXTS.glob("*.jsonl.zst") if path != TEXT)
    if not files:
        print(f"skipped: there is no text in {TEXTS}", file=sys.stderr)
        return
    torch.set_num_threads(given.threads)
    common = {"model": MODEL, "dtype": given.dtype, "device": device_name(), "torch": torch.__version__}
    report = Report("training_arms", common | {"threads": given.threads, "cores": os.cpu_count()}, given.append)
    print(f"{'arm':<28} {'tokens/s':>8}  share of the gap closed, by tokens", file=sys.stderr)
    for name in given.only:
        curve, rate = trained(given, files, ARMS[name])
        shown = ", ".join(f"{point['tokens']:,}: {point['gap']:.1%}" for point in curve)
        print(f"{name:<28} {rate:>8.0f}  {shown}", file=sys.stderr, flush=True)
        report.write({"benchmark": "training_arms", "arm": name, "tokens_per_second": round(rate, 1), "curve": curve})


def trained(given: argparse.Namespace, files: Sequence[str], changes: dict[str, Any]) -> tuple[list[Any], float]:
    """The curve of an arm, and its tokens/s."""
    schedule = {"tokens": given.tokens, "batch_tokens": 2048, "checkpoint_tokens": given.tokens // 4}
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            TrainingSpec.model_validate(
                {
                    "adapter": "arm",
                    "store": {"uri": folder},
                    "model": MODEL,
                    "data": {"text": files},
                    "first_window": False,
                    "placement": "interleave",
                    "dtype": given.dtype,
                    **changes,
                    "schedule": schedule | changes.get("schedule", {}),
                }
            )
        )
        plan = prepare(training)["plan"]
        outcome = training.read_work(train(training, plan)["trained"], TrainedAdapter).outcome
        curve = training.store.blobs.get_json(outcome.blobs["history"])["curve"]
    return curve, curve[-1]["tokens"] / outcome.seconds


if __name__ == "__main__":
    main()
