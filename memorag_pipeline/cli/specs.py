"""Commands that look at a spec: validate, schema.

In:  spec files.
Out: what is wrong with them, or what their memories take; with --connect also what `memorag doctor` finds.
Wrong: a refused spec exits with 3 (4 if it is the models' files alone), and a bad check with the code of its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import examine_spec
from memorag_pipeline.cli.doctor import look_at, print_findings
from memorag_pipeline.cli.output import Json, Verbose, print_error, print_json, say, working
from memorag_pipeline.errors import SpecError

if TYPE_CHECKING:
    from memorag_pipeline.doctor.findings import Finding
    from memorag_pipeline.errors import SpecProblem
    from memorag_pipeline.memory.cost import MemoryCost

_OFFLINE = (
    "looked at: spec, files of the models, this installation; not at source, store, questions, warehouse or endpoint,"
    " to which `memorag doctor SPEC` connects"
)


def validate(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Spec files.")],
    connect: Annotated[
        bool, typer.Option("--connect", help="Then connect to what each names, as memorag doctor does.")
    ] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check spec files and print everything that is wrong with them, or what their memories take.

    Source, store, questions, warehouses and endpoint are not connected to, unless --connect is given.
    """
    with working(verbose):
        examined = [_examined(path, connect) for path in specs]
    if json_output:
        print_json({str(each.path): each.as_json() for each in examined})
    else:
        for each in examined:
            each.show()
        if not connect and any(each.is_right for each in examined):
            say(_OFFLINE)
    if problems := [problem for each in examined for problem in each.problems]:
        raise typer.Exit(SpecError(problems).exit_code)
    if code := next((code for each in examined if (code := each.exit_code)), 0):
        raise typer.Exit(code)


@dataclass(frozen=True)
class _Examined:
    """What `validate` finds of a spec; `findings` are None if nothing was connected to."""

    path: Path
    problems: list[SpecProblem]
    notes: list[str]
    cost: MemoryCost | None
    findings: list[Finding] | None

    @property
    def is_right(self) -> bool:
        return not self.problems

    @property
    def exit_code(self) -> int:
        from memorag_pipeline.doctor.findings import exit_code_of

        return exit_code_of(self.findings or [])

    def as_json(self) -> dict[str, Any]:
        checks = {} if self.findings is None else {"checks": self.findings}
        return {"problems": self.problems, "notes": self.notes, "memory": self.cost, **checks}

    def show(self) -> None:
        if self.problems:
            print_error(SpecError(self.problems))
            return
        say(f"[green]{escape(str(self.path))} is right[/]")
        if self.cost is not None:
            say(f"  {escape(self.cost.words())}")
        for note in self.notes:
            say(f"  [yellow]{escape(note)}[/]")
        if self.findings is not None:
            print_findings(self.path, self.findings)


def _examined(path: Path, connect: bool) -> _Examined:
    from memorag_pipeline.memory.preflight import memory_cost
    from memorag_pipeline.preflight import notes

    found, problems = examine_spec(path, questions=True)
    if found is None or problems:
        return _Examined(path, problems, [], None, None)
    findings = look_at(found.spec) if connect else None
    return _Examined(path, [], notes(found.spec), memory_cost(found.spec), findings)


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
