"""Speed of a training step: tokens/s, against a plain forward and backward pass of the same base model.

| row   | measured                                     | against                                            |
|-------|----------------------------------------------|----------------------------------------------------|
| train | tokens/s of a step on packed sequences       | the same tokens through the base model (SDPA, its  |
|       |                                              | own loss), frozen, with gradients at its inputs    |
| train | the same                                     | the same with gradients of all weights             |
| peak  | growth of memory in a step                   | the first of these                                 |

With interleaved beacons a step reads 1 + 1/ratio slots for a token, with attended ones two, of which one has no
gradients, but for the last window; what a sequence's windows see of each other is compressed. The bound is that of
FLOPs. Run on an idle machine: python -m benchmarks.training
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from benchmarks.costs import Costs
from benchmarks.figures import Figure, Report
from benchmarks.subjects import MODEL, load, text_tokens
from benchmarks.timing import device_name, in_turn, peak_growth
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.specs.training import Placement, TrainingSpec
from memorag_pipeline.training.packing import PackedSequence
from memorag_pipeline.training.parameters import trainable
from memorag_pipeline.training.trainer import Trainer

MIB = 2**20


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.training"
    )
    parser.add_argument("--model", default=MODEL, help="reference or folder of a model, or the name of a shape")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sequences", type=int, default=2, help="of a step")
    parser.add_argument("--tokens", type=int, default=1024, help="of a sequence")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--placement", nargs="+", choices=get_args(Placement), default=list(get_args(Placement)))
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--distillation", type=float, default=0.0)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    common = {
        **{
            name: value for name, value in vars(given).items() if name not in ("append", "dtype", "tokens", "placement")
        },
        "device": device_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    report = Report("training", common, given.append)
    for dtype in given.dtype:
        model = load(given.model, dtype)
        for placement in given.placement:
            measure(given, model, placement, dtype, report)


def measure(given: argparse.Namespace, model: LanguageModel, placement: Placement, dtype: str, report: Report) -> None:
    """A step of ours, and the plain passes over the same tokens."""
    spec = TrainingSpec.model_validate(
        {
            "adapter": "benchmark",
            "store": {"uri": "memory://benchmark"},
            "model": given.model,
            "data": {"text": ["none"]},
            "window": given.window,
            "ratios": [given.ratio],
            "placement": placement,
            "distillation": given.distillation,
            "activation_checkpointing": given.activation_checkpointing,
        }
    )
    trainer = Trainer(model, trainable(model, spec), spec)
    stream = torch.tensor(text_tokens(model, given.sequences * given.tokens)).view(given.sequences, given.tokens)
    batch = [PackedSequence(tokens, tokens, "") for tokens in stream]
    inputs = stream.to(model.device)
    weights = [parameter for parameter in model.model.parameters() if parameter.is_floating_point()]

    def ours() -> None:
        trainer.loss(batch, 0).backward()
        for parameter in trainer.parameters.parameters():
            parameter.grad = None

    def frozen() -> None:
        embedded = model.model.get_input_embeddings()(inputs).detach().requires_grad_(True)
        model.model(inputs_embeds=embedded, labels=inputs, use_cache=False).loss.backward()

    def whole() -> None:
        for weight in weights:
            weight.requires_grad_(True)
        try:
            model.model(input_ids=inputs, labels=inputs, use_cache=False).loss.backward()
        finally:
            for weight in weights:
                weight.requires_grad_(False)
                weight.grad = None

    rates = [stream.numel() / taken for taken in in_turn([ours, frozen, whole], given.runs)]
    costs = Costs.of(model.model.config)
    needed = (costs.train_attended if placement == "attended" else costs.train)(
        given.tokens, given.window, given.ratio, 1
    )
    plain = 2 * (costs.prefill(given.tokens) + 2 * costs.head * given.tokens)
    slots = given.tokens // given.window * given.window // given.ratio
    for against, rate, flops in (
        ("frozen, gradients at inputs", rates[1], plain),
        ("all weights", rates[2], 1.5 * plain),
    ):
        report.add(
            Figure(
                row="train",
                what=f"training step, {placement}",
                dtype=dtype,
                tokens=given.tokens,
                slots=slots,
                value=rates[0],
                unit="tokens/s",
                against=against,
                baseline=rate,
                bound=flops / needed,
                note=f"{needed / given.tokens / 1e6:,.0f} MFLOP a token",
            )
        )
    report.add(
        Figure(
            row="peak",
            what=f"growth of memory in a step, {placement}",
            dtype=dtype,
            tokens=given.tokens,
            slots=slots,
            value=peak_growth(ours) / MIB,
            unit="MiB",
            against="frozen, gradients at inputs",
            baseline=peak_growth(frozen) / MIB,
            at_most=True,
        )
    )


if __name__ == "__main__":
    logging.getLogger("memorag_pipeline").setLevel(logging.ERROR)
    print("tokens/s of training steps", file=sys.stderr)
    main()
