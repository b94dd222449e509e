"""Commands that remove versions: retire, gc.

In:  TARGET; a version and a reason, or the retention rules of a spec.
Out: the tombstone; what was deleted, condemned or waits, why, and how many bytes; foreign objects.
Wrong: a version that a channel points to is not retired (exit code 5).
"""

from __future__ import annotations

import getpass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.cli.arguments import TargetArgument, is_spec_file, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working

if TYPE_CHECKING:
    from memorag_pipeline.storage.garbage.sweep import SweepReport, SweptObject


def retire(
    target: TargetArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of the version.")],
    why: Annotated[str, typer.Option("--why", help="The reason, shown to readers of the version.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Retire a version: it can no longer be opened, and `gc` deletes what only it holds."""
    with working(verbose):
        store = store_of(target)
        tombstone = store.versions.retire(version_of(store, version), by=getpass.getuser(), why=why)
    if json_output:
        print_json(tombstone)
        return
    say(f"version {tombstone.version} of {store.uri} is retired since {tombstone.since}, by {tombstone.by}")


def gc(
    target: TargetArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Retire the versions that the spec's retention rules do not keep, then delete what nothing refers to.

    An object is condemned first and deleted by a later gc, when the grace period is over.
    """
    from memorag_pipeline.reports.archive import outdated
    from memorag_pipeline.storage.garbage import retention
    from memorag_pipeline.storage.garbage.sweep import GRACE, sweep
    from memorag_pipeline.storage.layout import foreign_text

    with working(verbose):
        store, grace, retired = store_of(target), GRACE, list[int]()
        if is_spec_file(target):
            from memorag_pipeline.specs.corpus import read_spec

            rules = read_spec(target).store.retention
            grace = timedelta(days=rules.grace_days)
            by = getpass.getuser()
            retired = retention.plan(store, rules) if dry_run else retention.apply(store, rules, by)
        report = sweep(store, grace=grace, dry_run=dry_run, outdated=outdated(store.objects))
    if json_output:
        print_json({"uri": store.uri, "retired": retired, **_as_json(report)})
        return
    would = "would be " if dry_run else ""
    if retired:
        say(f"versions {would}retired: {', '.join(map(str, retired))}")
    rows = [
        *_rows(f"{would}deleted", report.deleted),
        *_rows(f"{would}condemned", report.condemned),
        *_rows("waiting", report.waiting),
    ]
    if rows:
        print_table(f"Objects of {store.uri}", ["", "why", "objects", "size", "may go from"], rows)
    say(
        f"{bytes_text(report.deleted_bytes)} {would}deleted; {bytes_text(report.condemned_bytes)} unreferenced"
        f" (deleted {grace.total_seconds() / 86400:g} days after they are first found so)"
    )
    young = [item for item in report.waiting if item.since is None]
    if young:
        say(f"{bytes_text(sum(item.size for item in young))} of retired versions are too young to be condemned yet")
    if report.foreign:
        say(f"not of the pipeline, and left alone: {foreign_text(report.foreign)}")


def _rows(state: str, swept: tuple[SweptObject, ...]) -> list[list[Any]]:
    """One row for each reason, with the day from which all of its objects may go."""
    reasons: dict[str, list[SweptObject]] = {}
    for item in swept:
        reasons.setdefault(item.why, []).append(item)
    return [
        [
            state,
            why,
            len(items),
            bytes_text(sum(item.size for item in items)),
            max((f"{item.may_go:%Y-%m-%d}" for item in items if item.may_go is not None), default=""),
        ]
        for why, items in sorted(reasons.items())
    ]


def _as_json(report: SweepReport) -> dict[str, Any]:
    from memorag_pipeline.storage.layout import printable

    lists = {name: getattr(report, name) for name in ("deleted", "condemned", "waiting")}
    return {
        "dry_run": report.dry_run,
        "grace_days": report.grace.total_seconds() / 86400,
        "deleted_bytes": report.deleted_bytes,
        "condemned_bytes": report.condemned_bytes,
        "foreign": [printable(name) for name in report.foreign],
        **{
            name: [
                {
                    "key": item.key,
                    "size": item.size,
                    "why": item.why,
                    "since": None if item.since is None else item.since.isoformat(),
                    "may_go": None if item.may_go is None else item.may_go.isoformat(),
                }
                for item in items
            ]
            for name, items in lists.items()
        },
    }
