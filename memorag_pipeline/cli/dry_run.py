"""The command `memorag dry-run`: what a refresh would do, and what it would cost.

In:  SPEC, and the price of an hour of a GPU.
Out: documents, shards, tokens, seconds, bytes and money, as text or JSON, and the basis of the estimates.
Wrong: the errors of `memorag refresh` before its first work. Nothing is written to the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.cli.arguments import SpecArgument, pipeline_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working

if TYPE_CHECKING:
    from memorag_pipeline.refresh.forecast import Forecast


def dry_run(
    spec: SpecArgument,
    gpu_hour: Annotated[
        float | None,
        typer.Option("--gpu-hour", min=0, help="Price of an hour of a GPU; by default compute.gpu_hour_price."),
    ] = None,
    documents: Annotated[
        str | None, typer.Option("--documents", metavar="GLOB", help="Of a refresh of the URIs that match alone.")
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what a refresh would do, without doing it: documents, shards, GPU seconds, bytes and money."""
    with working(verbose):
        from memorag_pipeline.refresh.forecast import forecast

        found = forecast(pipeline_of(spec), gpu_hour, documents)
    if json_output:
        print_json(found)
        return
    if not found.changed:
        say(f"nothing changed since version {found.parent} of {found.uri}; a refresh would publish nothing")
        return
    unknown = "unknown"
    rows: list[list[Any]] = [
        ["documents", f"{found.documents:,}"],
        ["added, modified, removed", f"{found.added:,}, {found.modified:,}, {found.removed:,}"],
        *([["left out by source.default_exclude", f"{found.left_out:,}"]] if found.left_out else []),
        ["to read", bytes_text(found.source_bytes)],
        ["tokens in these", f"about {found.tokens:,}"],
        ["shards to memorize", f"about {found.shards:,}, with {found.memorize_tokens:,} tokens"],
        ["their memories", unknown if found.memory_bytes is None else f"about {bytes_text(found.memory_bytes)}"],
        ["seconds of GPU tasks", unknown if found.gpu_seconds is None else f"about {found.gpu_seconds:,.1f}"],
        ["cost", _cost(found)],
    ]
    print_table(f"A refresh of {found.corpus} would be", ["", ""], rows)
    if found.memory is not None:
        say(f"  {escape(found.memory.words())}")
    if found.gpu is not None:
        say(f"  {escape(found.gpu.words())}")
    for note in found.rests_on:
        say(f"  {escape(note)}")


def _cost(found: Forecast) -> str:
    if found.cost is not None:
        return f"about {found.cost:,.4f}"
    if found.gpu_seconds is None:
        return "unknown, as the seconds are"
    return "unknown; give --gpu-hour PRICE, or compute.gpu_hour_price in the spec"
