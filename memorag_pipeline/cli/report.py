"""The command report: the report of a run, a version or a job, as a page or as numbers.

In:  TARGET, and what to report on.
Out: an HTML file, opened in the browser on request; with --json the facts.
Wrong: an unknown name exits with 4, with a list of the known ones.
"""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorag_pipeline.cli.arguments import TargetArgument, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, say, working
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.machine.cache_folder import own_folder

if TYPE_CHECKING:
    from memorag_pipeline.reports.facts import RunReport
    from memorag_pipeline.storage import CorpusStore


_HELP = "Id of a run, a version or channel, or the name of a job, for its newest run; the newest refresh by default."


def report(
    target: TargetArgument,
    what: Annotated[str | None, typer.Argument(metavar="RUN|VERSION|JOB", help=_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it here; by default a file in the cache folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser, too.")] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the report of a run to an HTML file."""
    with working(verbose):
        from memorag_pipeline.reports.page import run_page

        found = find_report(store_of(target), what)
        path = out or own_folder("reports") / f"{found.corpus}-{_name(found)}.html"
        if not json_output:
            path.write_text(run_page(found), encoding="utf-8")
    if json_output:
        print_json(found)
        return
    say(f"{found.corpus}, {found.job or 'refresh'}: {found.state}; the report is in {path}")
    if show:
        webbrowser.open(path.resolve().as_uri())


def find_report(store: CorpusStore, what: str | None) -> RunReport:
    """The report of a run, of a version (without stages, if its run left none) or of a job's newest run."""
    from memorag_pipeline.reports import archive, refresh_facts

    objects = store.objects
    if what is None and (newest := archive.newest(objects)) is not None:
        return newest
    jobs = archive.jobs(objects)
    if what in jobs and (newest := archive.newest(objects, what)) is not None:
        return newest
    if what is not None and (of_run := archive.of_run(objects, what)) is not None:
        return of_run
    if what is not None and not what.isdecimal() and what not in store.channels.names():
        raise NotFoundError(
            f"{store.uri} has no report of a run {what!r}, and no job or channel of this name; jobs with reports:"
            f" {', '.join(jobs) or 'none'}; `memorag versions` lists the versions"
        )
    number = version_of(store, what)
    made = archive.of_run(objects, store.versions.record(number).run_id)
    return made if made is not None and made.version == number else refresh_facts.of_version(store, number)


def _name(report: RunReport) -> str:
    """What a file with the report is called."""
    if report.job is not None:
        return f"{report.job}-version-{report.version}"
    return f"version-{report.version}" if report.version else re.sub(r"[^\w-]+", "-", report.run_id)
