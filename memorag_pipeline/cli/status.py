"""The command status: progress of the current or last refresh of a corpus.

In:  TARGET.
Out: a table of its stages with units done, running, failed, waiting and the time left; with --json the same as data.
Wrong: no run has reported yet: exit code 4.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorag_pipeline.amounts import duration_text
from memorag_pipeline.cli.arguments import TargetArgument, store_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, stdout, working
from memorag_pipeline.progress import bytes_rate_text

if TYPE_CHECKING:
    from memorag_pipeline.reports.status import RunStatus


_LOOK_EVERY = 3.0  # seconds
_STATES = {
    "published": "[bold green]published[/]",
    "unchanged": "nothing changed",
    "running": "[bold]running[/]",
    "failed": "[bold red]failed[/]",
    "idle": "[bold yellow]no task is at work[/]",
}


def status(
    target: TargetArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every few seconds, until the run ends.")
    ] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the progress of the current or last refresh."""
    if watch and json_output:
        raise typer.BadParameter("shows the status once; leave --watch out", param_hint="--json")
    with working(verbose):
        from memorag_pipeline.reports.status import StatusReader

        reader = StatusReader(store_of(target))
        found = reader.read()
    if json_output:
        print_json(found)
        return
    _print(found)
    while watch and not found.has_ended:
        time.sleep(_LOOK_EVERY)
        with working(verbose):
            found = reader.read()
        if stdout().is_terminal:
            stdout().clear()
        _print(found)


def _print(found: RunStatus) -> None:
    version = "" if found.version is None else f" as version {found.version}"
    say(f"[bold]Run {found.run_id}[/] of {found.uri}: {_STATES[found.state]}{version}")
    age = (datetime.now(UTC) - datetime.fromisoformat(found.beat_at)).total_seconds()
    say(f"began at {found.began_at}, last report {duration_text(max(age, 0))} ago")
    rows: list[list[Any]] = [
        [
            stage.stage,
            "?" if stage.units is None else f"{stage.done:,} of {stage.units:,}",
            "" if stage.tokens is None else f"{stage.tokens_done:,} of {stage.tokens:,}",
            stage.running,
            stage.failed,
            stage.waiting,
            stage.workers,
            f"{duration_text(stage.seconds)}{bytes_rate_text(stage.bytes_per_second)}",
            "" if found.has_ended else "?" if stage.seconds_left is None else duration_text(stage.seconds_left),
        ]
        for stage in found.stages
    ]
    print_table("", ["stage", "done", "tokens", "running", "failed", "waiting", "workers", "took", "left"], rows)
    for failure in found.failures:
        say(f"[red]{failure.stage}, task {failure.task}, attempt {failure.attempt}: {failure.error}[/]")
    if found.time_left:
        say(found.time_left)
