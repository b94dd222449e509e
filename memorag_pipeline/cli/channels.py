"""Commands on channels: promote, rollback, history.

In:  TARGET, a channel, and a reason for each move.
Out: the record that was written, or all of them; as text or JSON.
Wrong: an unknown or retired version exits with 4, one that lacks blobs with 5; the channel does not move.
"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from memorag_pipeline.cli.arguments import TargetArgument, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working

ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="Name of the channel, such as production.")]


def promote(
    target: TargetArgument,
    channel: ChannelArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number, or another channel.")],
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept in the channel's history.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Point a channel to a version."""
    if channel.isdecimal():
        raise typer.BadParameter("a number is a version; give the channel a name", param_hint="CHANNEL")
    with working(verbose):
        store = store_of(target)
        record = store.channels.promote(channel, version_of(store, version), by=getpass.getuser(), why=why)
    if json_output:
        print_json(record)
        return
    say(f"{record.channel} points to version {record.version} of {store.uri} since {record.since}")


def rollback(
    target: TargetArgument,
    channel: ChannelArgument,
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept in the channel's history.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Point a channel to the version that it pointed to before."""
    with working(verbose):
        store = store_of(target)
        record = store.channels.rollback(channel, by=getpass.getuser(), why=why)
    if json_output:
        print_json(record)
        return
    say(f"{record.channel} points to version {record.version} of {store.uri} again, since {record.since}")


def history(
    target: TargetArgument, channel: ChannelArgument, json_output: Json = False, verbose: Verbose = False
) -> None:
    """List the moves of a channel, newest first: when, by whom and why."""
    with working(verbose):
        store = store_of(target)
        store.channels.version(channel)
        records = store.channels.history(channel)[::-1]
    if json_output:
        print_json(records)
        return
    rows = [[record.since, record.action, record.version, record.by, record.why] for record in records]
    print_table(f"Channel {channel} of {store.uri}", ["since", "action", "version", "by", "why"], rows)
