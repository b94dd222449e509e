"""The command eval: systems side by side on sets of questions, or the gate's questions over a version of a corpus.

In:  files of questions with their texts; or the spec of a corpus whose section `evaluation` names questions.
Out: report.html and results.json in a folder, and a table; or the version's scores, and whether it passes. Nothing is
     promoted here.
Wrong: unusable files exit with 6, a refused spec with 3, a version that does not pass with 10, after its scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import VersionOption, is_spec_file, pipeline_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import GateError
from memorag_pipeline.specs.memory_kinds import KINDS

if TYPE_CHECKING:
    from memorag_pipeline.comparison.compare import Comparison


def evaluate(
    targets: Annotated[
        list[str], typer.Argument(metavar="DATASET...|SPEC", help="Files of questions, or the spec of a corpus.")
    ],
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="SPEC", help="Take models and forms from this spec.")
    ] = None,
    memory: Annotated[
        list[str] | None,
        typer.Option("--memory", metavar="KIND", help=f"{', '.join(KINDS)}: once for each."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Number of questions to ask from each file.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the report.")] = Path("evaluation"),
    seed: Annotated[int, typer.Option("--seed", help="Which rows are chosen.")] = 0,
    version: VersionOption = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure answers and evidence: of several systems on files of questions, or of a version by its spec's gate."""
    if len(targets) == 1 and is_spec_file(targets[0]):
        _evaluate_version(Path(targets[0]), version, json_output, verbose)
    else:
        _compare(targets, spec, memory, rows, out, seed, json_output, verbose)


def _evaluate_version(spec: Path, version: str | None, json_output: bool, verbose: bool) -> None:
    with working(verbose):
        from memorag_pipeline.refresh import evaluate as gate

        pipeline = pipeline_of(spec)
        result = gate.evaluate(pipeline, version_of(pipeline.store, version))
    if json_output:
        print_json(result)
    else:
        _print_verdicts(pipeline.spec.corpus, result)
    if not result["passed"]:
        raise GateError(f"version {result['version']} does not pass: {result['why']}")


def _print_verdicts(corpus: str, result: dict[str, Any]) -> None:
    """The scores of a version beside the compared ones and the bounds of the gate, and what is wrong with questions."""
    from memorag_pipeline.evaluation.gate import MetricVerdict
    from memorag_pipeline.evaluation.metrics import metric_name

    compared = result["compared_with"]
    before = [] if compared is None else [f"{result['channel']} (version {compared})"]
    rows = []
    for verdict in map(MetricVerdict.model_validate, result["scores"]):
        outcome = ", ".join(verdict.faults) or ("passes" if verdict.is_gated else "not in the gate")
        then = [_decimals(verdict.compared)] * len(before)
        bounds = [_decimals(verdict.max_drop), _decimals(verdict.minimum)]
        rows.append([metric_name(verdict.metric), _decimals(verdict.score), *then, *bounds, outcome])
    title = f"Version {result['version']} of {corpus}, {result['questions']:,} questions"
    print_table(title, ["metric", "this", *before, "drop allowed", "minimum", "verdict"], rows)
    for problem in result["broken"]:
        say(f"[yellow]left out: {escape(problem)}[/]")
    if result["note"]:
        say(f"[yellow]{escape(result['note'])}[/]")
    if result["passed"]:
        say("[bold green]it passes[/]")


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _compare(
    targets: list[str],
    spec: Path | None,
    memory: list[str] | None,
    rows: int | None,
    out: Path,
    seed: int,
    json_output: bool,
    verbose: bool,
) -> None:
    with working(verbose):
        from memorag_pipeline.comparison.compare import SECTIONS, compare
        from memorag_pipeline.comparison.report import write_comparison
        from memorag_pipeline.machine.cache_folder import own_folder

        unknown = [kind for kind in memory or () if kind not in KINDS]
        if unknown:
            raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(KINDS)}", param_hint="--memory")
        sections = SECTIONS if spec is None else pipeline_of(spec).spec
        wanted = memory or (KINDS if spec is None else [sections.memory.kind])
        kinds = tuple(kind for kind in KINDS if kind in wanted)
        compared = compare(targets, kinds, own_folder("evaluation"), sections, rows, seed)
        write_comparison(out, compared)
    if json_output:
        print_json(compared)
    else:
        _print(compared)
        say(f"report: {out / 'report.html'}")


def _print(compared: Comparison) -> None:
    from memorag_pipeline.comparison.report import interval, measured
    from memorag_pipeline.evaluation.metrics import metric_name

    for found in compared.sets:
        metrics = measured(found)
        print_table(
            f"{found.name}: {found.questions} questions, per cent (95 % interval)",
            ["system", *map(metric_name, metrics), "seconds each"],
            [
                [system.system, *(interval(system.metrics.get(metric)) for metric in metrics), system.seconds]
                for system in found.systems
            ],
        )
        for problem in found.broken:
            say(f"[yellow]left out of {escape(found.name)}: {escape(problem)}[/]")
