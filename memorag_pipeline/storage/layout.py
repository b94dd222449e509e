"""The layout of a corpus's store: which keys belong to the pipeline. All others are left alone.

In:  keys below a corpus's root, where people, file managers, NFS servers and copying tools leave files, too.
Out: the objects of a folder that the pipeline wrote; the names of everything else.

Foreign objects are never read, counted or deleted: a sweep names them. An object with one of our names that cannot be
read is an error for its reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.objects import ObjectStore

NAME = r"[a-z0-9][a-z0-9_-]{1,62}"  # of channels and jobs
_RUN = r"[0-9]{8}T[0-9]{6}([0-9]{6})?Z-[0-9a-f]{12}"  # earlier releases wrote whole seconds
_NUMBERED = r"[0-9]{20}\.json"
_NAMED = r"[0-9a-f]{32}\.json"
_TASK = r"[a-z_-]+-[0-9]{4,}\.json"
_SHOWN = 20

_OURS = {
    "blobs": re.compile(r"blobs/sha256/([0-9a-f]{2})/\1[0-9a-f]{62}"),
    "units": re.compile(r"units/[a-z_]+/([0-9a-f]{2})/\1[0-9a-f]{62}\.json"),
    "versions": re.compile(f"versions/{_NUMBERED}"),
    "retired": re.compile(f"retired/{_NUMBERED}"),
    "channels": re.compile(f"channels/{NAME}/{_NUMBERED}"),
    "intents": re.compile(f"intents/{_NAMED}"),
    "condemned": re.compile(f"condemned/{_NUMBERED}"),
    "deleting": re.compile(f"deleting/{_NAMED}"),
    "runs": re.compile(f"runs/{_RUN}/{_TASK}"),
    "job_runs": re.compile(f"job_runs/{NAME}/{_RUN}/{_TASK}"),
    "reports": re.compile(rf"reports/(refresh|jobs/{NAME})/{_RUN}\.(json|html)"),
}


def is_ours(key: str) -> bool:
    """Whether a key has a name that the pipeline gives."""
    pattern = _OURS.get(key.partition("/")[0])
    return pattern is not None and pattern.fullmatch(key) is not None


def is_in_our_folders(key: str) -> bool:
    """Whether a key is in a folder of the pipeline, under any name."""
    return "/" in key and key.partition("/")[0] in _OURS


def own(objects: ObjectStore, folder: str) -> list[StoredObject]:
    """The objects below `folder` that are ours, sorted by key."""
    return [stored for stored in objects.listing(folder) if is_ours(stored.key)]


def foreign(objects: ObjectStore, *listed: str) -> list[str]:
    """What is not ours, sorted: keys, and other folders of the root with a slash at the end; not below `listed`."""
    found = [entry for entry in objects.entries() if entry.removesuffix("/") not in _OURS or not entry.endswith("/")]
    for folder in _OURS.keys() - set(listed):
        found += [stored.key for stored in objects.listed(folder) if not is_ours(stored.key)]
    return sorted(found)


def printable(name: str) -> str:
    """A name with what cannot be shown, such as control characters, escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def foreign_text(names: Sequence[str]) -> str:
    """The names for one line of a log or a terminal, the first of many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(printable, names[:_SHOWN]))}{more}"
