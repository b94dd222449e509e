"""Fetched or converted models in the local cache: each is made once, and then used by all processes.

In:  the name of a folder, and a function that fills it.
Out: the complete folder.
Wrong: a cache that cannot be written is a `StorageError`; an error while filling the folder leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from memorag_pipeline.machine.cache_folder import cache_errors, cache_folder, full_disk, is_full, own_folder
from memorag_pipeline.machine.files import PART, locked


def model_folder(name: str) -> Path:
    """The cache folder of this model: one made by any user is used, a missing one will be this user's."""
    others = cache_folder() / "models" / name
    try:
        if others.is_dir():
            return others
    except PermissionError:
        pass
    own = others.parent.with_name(f"models-{os.geteuid()}") / name
    return own if own.is_dir() else others


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, made by one process while others wait; an incomplete folder never gets the final name."""
    if target.is_dir():
        return target
    target = own_folder(target.parent.name, target.parent.parent) / target.name
    with cache_errors(target.parent), locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=PART))
        try:
            make(part)
            part.chmod(0o755)
            part.rename(target)
        except Exception as error:  # libraries raise errors of their own
            if is_full(error):
                raise full_disk(target.parent) from error
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target
