"""Commands that move a version between stores: export, import.

In:  TARGET and a version; the path of a package, a folder or a .tar file.
Out: the package, or the version that holds it, as text or JSON.
Wrong: a damaged blob, a hostile package, one of another corpus or models by path or URL exit with 5, an unknown
       version or file with 4.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.cli.arguments import TargetArgument, TrustModels, store_of, version_of
from memorag_pipeline.cli.output import Json, Verbose, print_json, say, working


def export(
    target: TargetArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number or channel.")],
    package: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="Where to write it: a name ending in .tar, or a folder.")
    ],
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a version into one folder or tar file."""
    from memorag_pipeline.storage.packages.export import export_version

    with working(verbose):
        store = store_of(target)
        found = export_version(store, version_of(store, version), package)
    if json_output:
        print_json(found)
        return
    say(f"version {found.version} is in {escape(found.path)}: {found.blobs} blobs, {bytes_text(found.bytes)}")


def import_(
    package: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="What `memorag export` wrote.")],
    target: TargetArgument,
    trust_models: TrustModels = False,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Publish an exported version in a store, as its next version unless it holds the same."""
    from memorag_pipeline.storage.packages.import_version import import_version

    with working(verbose):
        store = store_of(target)
        corpus = store.uri.rpartition("/")[2]  # a root is the store's URI with the corpus's name
        found = import_version(package, store, f"import-{uuid.uuid4().hex[:12]}", trust_models, corpus)
    if json_output:
        print_json(found)
        return
    done = "is now" if found.created else "was already"
    say(f"{escape(str(package))} {done} version {found.version} of {found.uri}")
    say(f"{found.blobs} blobs were written, {bytes_text(found.bytes)}")
