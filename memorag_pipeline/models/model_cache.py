"""Fetched or converted models in the local cache: each is made once, and then used by all processes.

In:  the name of a folder, and a function that fills it.
Out: the complete folder.
Wrong: a cache that cannot be written is a `StorageError`; an error while filling the folder leaves nothing behind.

    models/NAME/        the model
    models/NAME.lock    locked while it is made, or removed
    models/NAME.use     what it is, in words; a shared lock of every process that has asked for it, while that lives
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from memorag_pipeline.machine.cache_folder import cache_errors, cache_folder, full_disk, is_full, own_folder
from memorag_pipeline.machine.files import PART, lock_if_free, locked
from memorag_pipeline.redaction import redacted

_NOTES = "digests"  # a folder beside the models
_held: dict[Path, int] = {}  # the locks of this process, by model


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


def made_once(target: Path, make: Callable[[Path], None], of: str = "") -> Path:
    """`target`, made by one process while others wait; an incomplete folder never gets the final name.

    `of` says in words what it is. As long as this process lives, `remove_model` does not remove it.
    """
    if use(target):
        return target
    target = own_folder(target.parent.name, target.parent.parent) / target.name
    with cache_errors(target.parent), locked(target.with_name(target.name + ".lock")):
        if use(target):
            return target
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=PART))
        try:
            make(part)
            part.chmod(0o755)
            part.rename(target)
            _use_file(target).write_text(redacted(of), encoding="utf-8")
            use(target)
        except Exception as error:  # libraries raise errors of their own
            if is_full(error):
                raise full_disk(target.parent) from error
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


def use(target: Path) -> bool:
    """Whether the model is there; from now on this process uses it."""
    if not target.is_dir():
        return False
    if target not in _held:
        with suppress(OSError):  # a cache that may not be written: nothing is removed there either
            handle = _shared(_use_file(target))
            if _held.setdefault(target, handle) != handle:  # another thread was first
                os.close(handle)
    return target.is_dir()


@dataclass(frozen=True)
class KeptModel:
    """A model in the cache: its folder, what it is as far as known, its last use (Unix time), whether one uses it."""

    folder: Path
    of: str
    used_at: float | None
    in_use: bool


def kept_models(folder: Path) -> Iterator[KeptModel]:
    """The models in a folder of the cache."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name != _NOTES and not path.name.startswith("."):
            notes = _use_file(path)
            of, used_at = (notes.read_text("utf-8"), notes.stat().st_mtime) if notes.exists() else ("", None)
            free = lock_if_free(notes)
            if free is not None:
                os.close(free)
            yield KeptModel(path, of, used_at, in_use=free is None)


def remove_model(target: Path) -> bool:
    """Remove a model that no process uses or makes; False if one does."""
    locks = [lock_if_free(target.with_name(target.name + suffix)) for suffix in (".use", ".lock")]
    try:
        if None in locks or not target.is_dir():
            return False
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=PART))
        target.rename(part / target.name)  # gone for others at once
    finally:
        for lock in locks:
            if lock is not None:
                os.close(lock)
    shutil.rmtree(part, ignore_errors=True)
    return True


def _use_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.use")


def _shared(path: Path) -> int:
    """The handle of a lock file that others may share; its time is the last use."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:  # another user's
        handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with suppress(OSError):
        os.utime(handle)
    return handle
