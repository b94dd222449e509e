"""Commands for the local cache of this machine: cache ls, cache rm.

In:  keys as `ls` shows them; an age.
Out: a table or JSON of what lies there; what was removed, and what stays because a process uses it.
Wrong: an unknown key exits with 4, and one that is in use, if it was named, with 5.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import StorageError

if TYPE_CHECKING:
    from memorag_pipeline.cache_contents import Item

_DAY = 24 * 3600

cache = typer.Typer(help="Look at and clear the local cache (MEMORAG_CACHE).", no_args_is_help=True)


@cache.command()
def ls(json_output: Json = False, verbose: Verbose = False) -> None:
    """Show what lies in the local cache, and when it was last used."""
    from memorag_pipeline import cache_contents
    from memorag_pipeline.machine.cache_folder import cache_folder

    with working(verbose):
        items = cache_contents.contents()
    if json_output:
        print_json({"folder": str(cache_folder()), "items": [_as_json(item) for item in items]})
        return
    if items:
        rows = [[*_row(item), _since(item.used_at), _in_use(item)] for item in items]
        print_table(f"Cache {cache_folder()}", ["key", "what", "files", "size", "last used", "in use"], rows)
    say(f"{bytes_text(sum(item.bytes for item in items))} in {cache_folder()}")


@cache.command()
def rm(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys that `cache ls` shows.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything that no process uses.")] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Only what was not used for DAYS days.")
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove items of the local cache. What a process uses stays; what is needed again is fetched or made again."""
    from memorag_pipeline import cache_contents

    if everything and keys:
        raise typer.BadParameter("give keys or --all, not both")
    if not everything and not keys and older_than is None:
        raise typer.BadParameter("give keys, --older-than or --all")
    with working(verbose):
        removed, kept = cache_contents.remove(keys or (), None if older_than is None else older_than * _DAY)
    if json_output:
        print_json({"removed": list(map(_as_json, removed)), "kept": list(map(_as_json, kept))})
    else:
        if removed:
            print_table("Removed", ["key", "what", "files", "size"], list(map(_row, removed)))
        say(f"{bytes_text(sum(item.bytes for item in removed))} removed")
        for item in kept:
            say(f"[yellow]{item.key} stays: {item.files} files ({bytes_text(item.bytes)}) may be in use[/]")
    if kept and keys:
        raise StorageError(
            f"in use, and not removed: {', '.join(item.key for item in kept)}; end the processes that read or write"
            " there, and repeat"
        )


def _row(item: Item) -> list[Any]:
    return [item.key, item.what, item.files, bytes_text(item.bytes)]


def _since(used_at: float | None) -> str:
    return "" if used_at is None else f"{datetime.fromtimestamp(used_at, UTC):%Y-%m-%d %H:%M} UTC"


def _in_use(item: Item) -> str:
    return bytes_text(item.used_bytes) if item.used_bytes else ""


def _as_json(item: Item) -> dict[str, Any]:
    used = None if item.used_at is None else datetime.fromtimestamp(item.used_at, UTC).isoformat(timespec="seconds")
    return {
        "key": item.key,
        "what": item.what,
        "files": item.files,
        "bytes": item.bytes,
        "used_at": used,
        "used_bytes": item.used_bytes,
    }
