"""Commands that look at a spec alone: validate, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import (
    examine_spec,
)
from memorag_pipeline.cli.output import Json, Verbose, print_error, print_json, say, working
from memorag_pipeline.errors import SpecError


def validate(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Spec files.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check spec files and print everything that is wrong with them, or what their memories take."""
    from memorag_pipeline.preflight import memory_cost, notes

    with working(verbose):
        found = {path: examine_spec(path) for path in specs}
        right = {path: spec.spec for path, (spec, bad) in found.items() if spec is not None and not bad}
        costs = {path: memory_cost(spec) for path, spec in right.items()}
        told = {path: notes(spec) for path, spec in right.items()}
    if json_output:
        print_json(
            {
                str(path): {"problems": bad, "notes": told.get(path, []), "memory": costs.get(path)}
                for path, (_, bad) in found.items()
            }
        )
    for path, (_, bad) in found.items():
        if json_output:
            continue
        if bad:
            print_error(SpecError(bad))
            continue
        say(f"[green]{path} is right[/]")
        if (cost := costs[path]) is not None:
            say(f"  {escape(cost.words())}")
        for note in told[path]:
            say(f"  [yellow]{escape(note)}[/]")
    if problems := [problem for _, bad in found.values() for problem in bad]:
        raise typer.Exit(SpecError(problems).exit_code)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/corpus-spec.md.")] = False,
) -> None:
    """Print the JSON schema of a spec, for editors."""
    if markdown:
        from memorag_pipeline.specs import reference as spec_reference

        typer.echo(spec_reference.markdown(), nl=False)
    else:
        from memorag_pipeline.specs.corpus import json_schema

        print_json(json_schema())
