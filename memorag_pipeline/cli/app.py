"""The command `memorag`: the same stages as in Airflow, in this process, and commands that inspect what they published.

In:  the command line.
Out: text or JSON on stdout, progress on stderr.
Wrong: one clear message on stderr and an exit code for the kind of error; see `cli.output.EXIT_CODES`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memorag_pipeline.cli import (
    airflow,
    answers,
    cache,
    channels,
    doctor,
    documents,
    dry_run,
    evaluate,
    memory,
    quarantine,
    refresh,
    report,
    retention,
    specs,
    status,
    summarize,
    train,
    transfer,
    versions,
)
from memorag_pipeline.cli.output import EXIT_CODES, print_error
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.machine.packages import named_packages

_HELP = """Turn a corpus in object storage into a versioned memory, and answer from it in bulk.

SPEC is the YAML file of a corpus. TARGET is a SPEC, or the root of a published corpus: the store's URI with the \
corpus's name, such as s3://bucket/kb/handbook. VERSION is a number, or the name of a channel."""


class _Commands(TyperGroup):
    """Turns errors that a user can act on into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with named_packages():
                return super().invoke(ctx)
        except MemoragError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    name="memorag",
    cls=_Commands,
    help=_HELP,
    epilog="\n".join(["Exit codes:", *(f"{code}  {meaning}" for code, meaning in EXIT_CODES.items())]),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from memorag_pipeline import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the program's version.")
    ] = False,
) -> None:
    """Options before the command."""


for command in (
    specs.validate,
    doctor.doctor,
    specs.schema,
    refresh.refresh,
    answers.answer,
    answers.ask,
    answers.search,
    summarize.summarize,
    memory.recall,
    train.train,
    status.status,
    versions.versions,
    versions.show,
    versions.diff,
    documents.documents,
    quarantine.quarantine,
    report.report,
    channels.promote,
    channels.rollback,
    channels.history,
    retention.retire,
    retention.gc,
    versions.verify,
    transfer.export,
):
    app.command()(command)
app.command("import")(transfer.import_)
app.command("eval")(evaluate.evaluate)
app.command("dry-run")(dry_run.dry_run)
app.add_typer(memory.memory, name="memory")
app.add_typer(cache.cache, name="cache")
app.add_typer(airflow.airflow, name="airflow")


def main() -> None:
    """Entry point of the program."""
    app()
