"""Commands that inspect a published corpus: versions, show, diff, verify.

In:  TARGET, and versions by number or channel.
Out: text, or JSON of the same facts.
Wrong: an unknown version or channel exits with 4; a version that does not verify exits with 5.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorag_pipeline.amounts import bytes_text, counts_text
from memorag_pipeline.cli.arguments import TargetArgument, VersionArgument, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, working
from memorag_pipeline.errors import CorruptBlobError

if TYPE_CHECKING:
    from memorag_pipeline.storage import Manifest
    from memorag_pipeline.storage.manifest import IndexRecord


_COLUMNS = ("documents", "chunks", "quarantined", "shards", "tokens")


@dataclass(frozen=True)
class _Line:
    """A version as `memorag versions` lists it."""

    version: int
    created_at: str
    counts: dict[str, int]
    channels: tuple[str, ...]
    retired: str | None


def versions(
    target: TargetArgument,
    last: Annotated[int, typer.Option("--last", min=1, help="List this many, the newest first.")] = 20,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the versions of a corpus."""
    with working(verbose):
        store = store_of(target)
        numbers = sorted(store.versions.numbers(), reverse=True)
        if not numbers:
            version_of(store, None)
        channels, retired = store.channels.targets(), store.versions.retired()
        listed = []
        for number in numbers[:last]:
            named = tuple(name for name, version in channels.items() if version == number)
            created_at, gone = store.versions.record(number).created_at, retired.get(number)
            counts = store.versions.manifest(number).counts if gone is None else {}
            listed.append(_Line(number, created_at, counts, named, None if gone is None else gone.why))
    if json_output:
        print_json(listed)
        return
    rows = [
        [
            str(line.version),
            line.created_at,
            *(line.counts.get(name) for name in _COLUMNS),
            ", ".join(line.channels) if line.retired is None else f"retired: {line.retired}",
        ]
        for line in listed
    ]
    print_table(f"Versions of {store.uri}", ["version", "created at", *_COLUMNS, "channels"], rows)


def show(
    target: TargetArgument, version: VersionArgument = None, json_output: Json = False, verbose: Verbose = False
) -> None:
    """Show what a version holds."""
    with working(verbose):
        store = store_of(target)
        number = version_of(store, version)
        record, manifest = store.versions.record(number), store.versions.manifest(number)
        channels = [name for name, pointed in store.channels.targets().items() if pointed == number]
    if json_output:
        print_json({**record.model_dump(mode="json"), "channels": channels, "manifest": manifest})
        return
    say(f"[bold]Version {number}[/] of {manifest.corpus} at {store.uri}")
    say(f"created at {record.created_at} by run {record.run_id}, after version {record.parent or 'none'}")
    say(f"channels: {', '.join(channels) or 'none'}")
    say(f"holds {counts_text({name: manifest.count(name) for name in _COLUMNS})}\n")
    print_table(
        "Models",
        ["role", "name", "revision", "digest"],
        [[model.role, model.name, model.revision, model.digest[:16]] for model in manifest.models],
    )
    print_table("\nMemories", ["kind", "shards", "tokens", "stale tokens", "stale", "stalest"], _memory_rows(manifest))
    if manifest.index is not None:
        columns = ["segments", "kind", "number", "texts", "chunks", "masked chunks"]
        print_table("\nIndex", columns, _segment_rows(manifest.index))
    blobs: Counter[str] = Counter(blob.role for blob in manifest.blobs)
    sizes: Counter[str] = Counter()
    for blob in manifest.blobs:
        sizes[blob.role] += blob.size
    print_table("\nBlobs", ["role", "blobs", "size"], [[role, blobs[role], bytes_text(sizes[role])] for role in blobs])


def _segment_rows(index: IndexRecord) -> list[list[object]]:
    """For each kind of segment what its segments have."""
    rows = list[list[object]]()
    for kind, factory in (("base", index.factory), ("delta", "Flat, large ones as base")):
        segments = [segment for segment in index.segments if segment.kind == kind]
        if segments:
            sums = (sum(getattr(segment, name) for segment in segments) for name in ("vectors", "chunks", "masked"))
            rows.append([kind, factory, len(segments), *sums])
    return rows


def diff(
    target: TargetArgument,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Number or channel.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Number or channel.")],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two versions."""
    from memorag_pipeline.storage.diff import diff as compare

    with working(verbose):
        store = store_of(target)
        found = compare(store, version_of(store, old), version_of(store, new))
    if json_output:
        print_json(found)
        return
    say(f"[bold]From version {found.old} to {found.new}[/]: {bytes_text(found.new_bytes)} of new blobs")
    rows = [(name, getattr(found, name)) for name in ("documents", "chunks", "memories")]
    print_table(
        "", ["", "added", "changed", "removed"], [[n, len(c.added), len(c.changed), len(c.removed)] for n, c in rows]
    )
    for sign in ("added", "changed", "removed"):
        for uri in getattr(found.documents, sign):
            say(f"  {sign} {uri}")
    for uri in found.quarantined:
        say(f"  quarantined {uri}")
    for change in (*found.models, *found.spec):
        say(f"  {change.name}: {_short(change.old)} → {_short(change.new)}")


def verify(
    target: TargetArgument,
    version: VersionArgument = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also read what this machine found intact within the last day.")
    ] = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Read every blob of a version and compare it with the manifest; an interrupted run resumes."""
    from memorag_pipeline.storage.verify import verify as check

    with working(verbose):
        store = store_of(target)
        number = version_of(store, version)
        problems = check(store, number, again)
    if json_output:
        print_json({"version": number, "uri": store.uri, "problems": problems})
    elif problems:
        for problem in problems:
            say(f"[red]{problem}[/]")
        say(f"[bold red]{len(problems)} blobs of version {number} are damaged[/]; restore them from a copy of the")
        say("store, or refresh to make a new version (`memorag refresh SPEC`)")
    else:
        say(f"[green]version {number} of {store.uri} is complete and unaltered[/]")
    if problems:
        raise typer.Exit(CorruptBlobError.exit_code)


def _memory_rows(manifest: Manifest) -> list[list[Any]]:
    """For each kind of shard how much of its memories is stale."""
    rows: list[list[Any]] = []
    for kind in ("base", "delta"):
        if memories := [memory for memory in manifest.memories if memory.kind == kind]:
            tokens, stale = (sum(getattr(memory, name) for memory in memories) for name in ("tokens", "stale_tokens"))
            stalest = max(memories, key=lambda memory: memory.stale_share)
            shown = f"{stalest.shard_id} {stalest.stale_share:.1%}" if stalest.stale_tokens else "none"
            rows.append([kind, len(memories), tokens, stale, f"{stale / max(1, tokens):.1%}", shown])
    return rows


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items() if item is not None)
    return "none" if value is None else str(value)
