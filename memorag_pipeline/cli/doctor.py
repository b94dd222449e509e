"""The command `memorag doctor`: looks at everything that a spec names, and prints what it found.

In:  SPEC.
Out: a table of checks, each good, bad or not looked at; with --json the same as data.
Wrong: a spec that is refused exits with 3, a bad check with the code of its error, of several with that of the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from memorag_pipeline.cli.arguments import SpecArgument, examine_spec
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import SpecError

if TYPE_CHECKING:
    from memorag_pipeline.doctor.findings import Finding
    from memorag_pipeline.specs.corpus import CorpusSpec

SECONDS = 60.0  # for all checks of a spec together
_SIGNS = {"good": "✓", "bad": "✗", "not looked": "–"}  # noqa: RUF001 - as in other tables


def doctor(
    spec: SpecArgument,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long all checks together may take.")
    ] = SECONDS,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Connect to everything that a spec names, and say what works and what to do about the rest.

    Nothing is changed, but for an object of its own in the store, which it writes and deletes.
    """
    from memorag_pipeline.doctor.findings import Finding, exit_code_of

    with working(verbose):
        examined, problems = examine_spec(spec)
        if examined is None or examined.problems:
            raise SpecError(problems)
        found = [Finding("spec", "bad", str(problem), problem.exit_code) for problem in problems]
        found = (found or [Finding("spec", "good", f"{spec} is right")]) + look_at(examined.spec, timeout)
    if json_output:
        print_json(found)
    else:
        print_findings(spec, found)
    if code := exit_code_of(found):
        raise typer.Exit(code)


def look_at(spec: CorpusSpec, seconds: float = SECONDS) -> list[Finding]:
    """The findings of all checks of a spec."""
    from memorag_pipeline.doctor.examine import examine

    return examine(spec, seconds)


def print_findings(path: Path, findings: list[Finding]) -> None:
    """A table of findings, and how many are bad."""
    rows = [[_SIGNS[each.state], each.check, each.found] for each in findings]
    print_table(f"What {path} names", ["", "check", "found"], rows)
    if bad := sum(each.state == "bad" for each in findings):
        say(f"[red]{bad} of {len(rows)} checks of {escape(str(path))} are bad[/]")
