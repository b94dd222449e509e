"""The command `memorag quarantine`: the documents that a version leaves out, and what to do about each.

In:  TARGET, and a version by number or channel.
Out: the rows of the version's quarantine, as text by reason, or as JSON.
Wrong: an unknown version or channel exits with 4.
"""

from __future__ import annotations

from itertools import groupby

from memorag_pipeline.cli.arguments import TargetArgument, VersionArgument, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, say, working


def quarantine(
    target: TargetArgument, version: VersionArgument = None, json_output: Json = False, verbose: Verbose = False
) -> None:
    """Show the documents that a version leaves out, why, and what to do."""
    from rich.markup import escape

    from memorag_pipeline.corpus.quarantine import advice
    from memorag_pipeline.storage.version_tables import VersionTables

    with working(verbose):
        store = store_of(target)
        number = version_of(store, version)
        rows = VersionTables(store, number).rows("quarantine")
    if json_output:
        print_json(rows)
        return
    say(f"[bold]Version {number}[/] of {store.uri} leaves out {len(rows)} documents")
    for reason, group in groupby(sorted(rows, key=lambda row: (row["reason"], row["uri"])), lambda row: row["reason"]):
        same = list(group)
        say(f"\n[bold]{reason}[/] ({len(same)}): {same[0].get('advice') or advice(reason)}")
        for row in same:
            say(f"  {escape(row['uri'])}: {escape(row['detail'])}")
