"""The command summarize: a job of kind summaries, or one summary in this process.

In:  SPEC and JOB; or TARGET and what of it to summarize.
Out: a summary of what was done, or the summary with the passages that it used; with --json the same as data.
Wrong: what a stage raises, with its exit code; a summary that fails exits with 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import (
    TargetArgument,
    TrustModels,
    VersionOption,
    opened_version,
    pipeline_of,
    version_of,
)
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_stages, print_table, say, start_of, working
from memorag_pipeline.errors import MemoragError

if TYPE_CHECKING:
    from memorag_pipeline.jobs.summaries.summary import Summary


def summarize(
    target: TargetArgument,
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Name of a job in the spec, run as a whole.")
    ] = None,
    document: Annotated[str | None, typer.Option("--document", metavar="URI", help="Summarize this document.")] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="Summarize the documents that match, as one.")
    ] = None,
    focus: Annotated[str | None, typer.Option("--focus", metavar="QUESTION", help="What it is to be about.")] = None,
    version: VersionOption = None,
    trust_models: TrustModels = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a job of kind summaries, or summarize a document, a folder or the whole corpus."""
    if job is not None:
        if document is not None or include or focus is not None:
            raise typer.BadParameter("a job says in the spec what it summarizes; leave JOB or the options out")
        _run_job(Path(target), job, version, json_output, verbose)
        return
    if document is not None and include:
        raise typer.BadParameter("give --document or --include, not both")
    with working(verbose):
        opened = opened_version(target, version, trust_models)
        found = opened.summarize(document, include or (), focus)
    if json_output:
        print_json(found)
    if found.status == "error":
        raise MemoragError(found.error)
    if not json_output:
        _print(found, f"version {opened.number} of {opened.uri}")


def _run_job(spec: Path, job: str, version: str | None, json_output: bool, verbose: bool) -> None:
    with working(verbose):
        from memorag_pipeline import runner

        pipeline = pipeline_of(spec)
        number = None if version is None else version_of(pipeline.store, version)
        result = runner.summarize(pipeline, job, number)
    if json_output:
        print_json(result)
        return
    print_stages(f"Job {job} of {pipeline.spec.corpus}", result)
    say(f"[bold green]{result.rows} rows[/] over version {result.version} are in {result.warehouse}")
    if result.export is not None:
        say(f"file: {escape(result.export)}")


def _print(found: Summary, source: str) -> None:
    say(f"[bold]{escape(found.summary or '')}[/]\n")
    if found.key_points:
        print_table("Key points that were recalled", ["key point"], [[point] for point in found.key_points])
    print_table(
        f"Passages used, of {len(found.evidence)} offered, {source}",
        ["number", "document", "characters", "text"],
        [
            [
                str(number),
                passage.uri.rpartition("/")[2],
                f"{passage.start}-{passage.end}",
                start_of(passage.text),
            ]
            for number, passage in enumerate(found.evidence, 1)
            if number in found.used
        ],
    )
