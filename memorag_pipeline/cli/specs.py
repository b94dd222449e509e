"""Commands that look at a spec alone: validate, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    """Check spec files and print everything that is wrong with them."""
    with working(verbose):
        problems = {path: examine_spec(path)[1] for path in specs}
    if json_output:
        print_json({str(path): found for path, found in problems.items()})
    for path, found in problems.items():
        if json_output:
            continue
        if found:
            print_error(SpecError(found))
        else:
            say(f"[green]{path} is right[/]")
    if any(problems.values()):
        raise typer.Exit(SpecError.exit_code)


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
