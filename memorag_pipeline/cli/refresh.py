"""The command that refreshes a corpus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import (
    SpecArgument,
    pipeline_of,
)
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_stages, say, working


def refresh(
    spec: SpecArgument,
    documents: Annotated[
        str | None,
        typer.Option("--documents", metavar="GLOB", help="Compare only the URIs that match; others stay unchanged."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Read all of the newest version and rebuild what is damaged.")
    ] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Bring a corpus up to date and publish a version, if anything changed."""
    with working(verbose):
        from memorag_pipeline import runner

        pipeline = pipeline_of(spec)
        result = runner.refresh(pipeline, f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}", documents, force)
    if json_output:
        print_json(result)
        return
    print_stages(f"Refresh of {pipeline.spec.corpus}", result)
    if result.created:
        say(f"[bold green]version {result.version} is published[/] at {result.uri}")
    else:
        say(f"nothing changed; version {result.version} stays the newest at {result.uri}")
    if left_out := result.counts.get("publish", {}).get("quarantined"):
        command = escape(f"memorag quarantine {spec}")
        say(f"[yellow]{left_out:,.0f} in quarantine; `{command}` says why and what to do[/]")
    for note in result.notes:
        say(f"[bold yellow]{escape(note)}[/]")
