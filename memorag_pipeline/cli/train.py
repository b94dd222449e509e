"""The command train: an adapter from a training spec, or from the documents of a corpus.

In:  a training spec, or with --from-corpus the spec of a corpus that has a version.
Out: a version of the adapter in its store, promoted if it is better; with --out and --report copies of its files.
Wrong: every problem of the spec at once (exit code 3); what a stage raises. Checkpoints keep the progress.
"""

from __future__ import annotations

import getpass
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import NotFoundError

if TYPE_CHECKING:
    from memorag_pipeline.specs.training import TrainingSpec
    from memorag_pipeline.training.runner import TrainResult


def train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Training spec; with --from-corpus a corpus spec.")],
    from_corpus: Annotated[
        bool, typer.Option("--from-corpus", help="Train on the documents of a corpus, for its memory model.")
    ] = False,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens of text to train on.")] = None,
    texts: Annotated[int | None, typer.Option("--texts", min=1, help="Number of texts to evaluate on.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Copy the adapter to this file.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Copy the HTML report there.")] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train the memory of a model, and publish the adapter as a version."""
    with working(verbose):
        from memorag_pipeline.models.references import resolve_file
        from memorag_pipeline.training.runner import train as run
        from memorag_pipeline.training.training import Training

        for option, path in (("--out", out), ("--report", report)):
            if path is not None and not path.parent.is_dir():
                raise NotFoundError(f"{option} {path}: there is no folder {path.parent}; make it first")
        training = Training(_changed(_read(spec, from_corpus), tokens, texts))
        result = run(training, f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}", getpass.getuser())
        if result is None:
            return
        if out is not None:
            shutil.copyfile(resolve_file(f"{result.uri}@{result.version}"), out)
        if report is not None:
            blobs = training.store.blobs
            shutil.copyfile(blobs.open_file(blobs.ref_of(result.report), "report"), report)
    if json_output:
        print_json(result)
    else:
        _print(training.spec, result)


def _read(path: Path, from_corpus: bool) -> TrainingSpec:
    from memorag_pipeline.specs.training import read_training_spec, spec_for_corpus

    return spec_for_corpus(path) if from_corpus else read_training_spec(path)


def _changed(spec: TrainingSpec, tokens: int | None, texts: int | None) -> TrainingSpec:
    """The spec with what the command line says otherwise."""
    schedule = {} if tokens is None else {"tokens": tokens}
    evaluation = {} if texts is None else {"texts": texts}
    return spec.model_copy(
        update={
            "schedule": spec.schedule.model_copy(update=schedule),
            "evaluation": spec.evaluation.model_copy(update=evaluation),
        }
    )


def _print(spec: TrainingSpec, result: TrainResult) -> None:
    texts = "1 held-out text" if result.texts == 1 else f"{result.texts} held-out texts"
    say(f"[bold]Share of the gap between no context and full context that {spec.adapter} closes, on {texts}[/]")
    print_table(
        "",
        ["memory", *(f"ratio {ratio}" for ratio in spec.evaluation.ratios)],
        [
            [name, *(f"{by_ratio[ratio]:.1%}" for ratio in spec.evaluation.ratios)]
            for name, by_ratio in result.gaps.items()
        ],
    )
    if result.texts < spec.evaluation.texts:
        say(f"there are no {spec.evaluation.texts} held-out texts: add some, or raise data.held_out_percent")
    state = "is published" if result.created else "holds the same already"
    say(f"[bold green]version {result.version} {state}[/] at {result.uri}")
    say(f"{'promoted' if result.promoted else 'not promoted'}: {result.why}")
    say(f"report: {result.report}")
    say(f"use it with memory.kind beacon and memory.adapter {result.uri}@{result.version}")
