"""The command `memorag documents`: what a version has read, document by document.

In:  TARGET, perhaps one document by URI, id or name; a version, and an earlier one to compare it with.
Out: a list of the documents, or one of them: its text as it was extracted, headings, chunks; or the lines that changed.
Wrong: an unknown version or document exits with 4.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorag_pipeline.cli.arguments import TargetArgument, VersionOption, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, say, stdout, working
from memorag_pipeline.errors import NotFoundError

if TYPE_CHECKING:
    from memorag_pipeline.storage.version_tables import Row, VersionTables

_LISTED = ["document_id", "uri", "title", "media_type", "characters", "tokens"]
_CHUNK = ["chunk_id", "ordinal", "start", "end", "tokens"]


def documents(
    target: TargetArgument,
    document: Annotated[
        str | None,
        typer.Argument(metavar="DOCUMENT", help="URI, id, or name relative to the source's URI; all by default."),
    ] = None,
    version: VersionOption = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="VERSION", help="Show the lines of DOCUMENT that changed since.")
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the documents of a version, or show one: its text as extracted, its headings and chunks."""
    from memorag_pipeline.storage.version_tables import VersionTables

    if since is not None and document is None:
        raise typer.BadParameter("--since takes a DOCUMENT; `memorag diff` compares all documents of two versions")
    with working(verbose):
        store = store_of(target)
        tables = VersionTables(store, version_of(store, version))
        if document is None:
            listed = sorted(tables.rows("documents", _LISTED), key=lambda row: row["uri"])
        else:
            shown = _whole(tables, document)
            old = _text(VersionTables(store, version_of(store, since)), document) if since is not None else ""
    if document is None:
        _list(listed, tables, json_output)
    elif since is not None:
        _compare(old, shown["text"], f"version {since}", f"version {tables.number}", json_output)
    elif json_output:
        print_json(shown)
    else:
        _show(shown)


def _read(tables: VersionTables, document: str) -> tuple[int, Row]:
    """The number of a document's tables, and its row with its text and headings."""
    from memorag_pipeline.storage.document_names import find_row

    number, row = find_row(tables, document, _LISTED)
    return number, row | _rows(tables, "documents", number, ["document_id", "headings", "text"], row["document_id"])[0]


def _whole(tables: VersionTables, document: str) -> Row:
    """A document's row with its text, its headings and the places of its chunks."""
    number, row = _read(tables, document)
    chunks = _rows(tables, "chunks", number, ["document_id", *_CHUNK], row["document_id"])
    row["chunks"] = [{name: chunk[name] for name in _CHUNK} for chunk in sorted(chunks, key=lambda each: each["start"])]
    return row


def _rows(tables: VersionTables, role: str, number: int, columns: list[str], document_id: str) -> list[Row]:
    import pyarrow.compute as pc

    table = tables.read(tables.numbered(role, number), columns)
    rows: list[Row] = table.filter(pc.field("document_id") == document_id).to_pylist()
    return rows


def _text(tables: VersionTables, document: str) -> str:
    """A document's text; empty where the version does not have it."""
    try:
        return str(_read(tables, document)[1]["text"])
    except NotFoundError:
        return ""


def _list(rows: list[Row], tables: VersionTables, json_output: bool) -> None:
    if json_output:
        print_json(rows)
        return
    print_table(
        f"{len(rows):,} documents of version {tables.number} of {tables.uri}",
        ["document", "title", "format", "characters", "tokens"],
        [[row["uri"], row["title"], row["media_type"], row["characters"], row["tokens"]] for row in rows],
    )


def _show(row: Row) -> None:
    from rich.markup import escape

    say(f"[bold]{escape(row['title'] or row['uri'])}[/]")
    say(f"{escape(row['uri'])}: {row['media_type']}, {row['characters']:,} characters, {row['tokens']:,} tokens")
    if row["headings"]:
        rows: list[list[Any]] = [[each["start"], "  " * (each["level"] - 1) + each["text"]] for each in row["headings"]]
        print_table("\nHeadings", ["at", "heading"], rows)
    chunks = [[each["ordinal"], f"{each['start']}-{each['end']}", each["tokens"]] for each in row["chunks"]]
    print_table("\nChunks", ["number", "characters", "tokens"], chunks)
    say("\n[bold]Text[/]")
    stdout().print(row["text"], markup=False, soft_wrap=True)


def _compare(old: str, new: str, before: str, after: str, json_output: bool) -> None:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm="", n=2))
    if json_output:
        print_json(lines)
        return
    for line in lines or ["nothing changed"]:
        stdout().print(line, markup=False, soft_wrap=True)
