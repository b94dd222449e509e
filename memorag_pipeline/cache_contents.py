"""What lies in the local cache of this user, and removing it: blobs of stores, models, notes, half-finished transfers.

In:  the cache folder; keys such as `blobs`, `blobs/DIGEST` or `models/NAME`.
Out: its items with sizes and last use; what was removed, and what stays because a process uses it.
Wrong: an unknown key is a `NotFoundError`; a cache that cannot be read is a `StorageError`.

Only names that the pipeline gives, in folders that are this user's, are listed or removed. Blobs and models in use are
known by locks, which end with their processes. Transfers and evaluations have none: they stay for a day after they were
last written. Notes can go at any time.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.machine.cache_folder import cache_errors, cache_folder, own_parts
from memorag_pipeline.machine.files import PART
from memorag_pipeline.models import model_cache
from memorag_pipeline.storage import cache as blob_cache

_SETTLED_SECONDS = 24 * 3600
_BLOB_KEY = re.compile(r"blobs/([0-9a-f]{64})")
# What may go at any time: the folder, the names of its files, what they are.
_NOTES = (
    ("verified", r"[0-9a-f]{32}", "which blobs `memorag verify` found intact"),
    ("reports", r".*\.html", "pages that `memorag report` wrote"),
    ("matplotlib", r".*", "fonts that plots are drawn with"),
)
# What a process may be writing.
_WORK = (
    ("transfers", "blobs of exports and imports"),
    ("evaluation", "versions and scores of `memorag eval`"),
)


@dataclass(frozen=True)
class Item:
    """An item of the cache. `used_at` is a Unix time: the last use, or where that is not known the last change.

    `used_bytes` of `bytes` are in use by a process.
    """

    key: str
    what: str
    files: int
    bytes: int
    used_at: float | None
    used_bytes: int = 0


def contents() -> list[Item]:
    """The items of the cache, the largest first; empty kinds are left out."""
    with cache_errors(cache_folder()):
        items = [item for item, _ in _items() if item.files]
    return sorted(items, key=lambda item: (-item.bytes, item.key))


def remove(keys: Sequence[str] = (), older_than: float | None = None) -> tuple[list[Item], list[Item]]:
    """Remove the items of these keys, or without keys all; returns what was removed, and what stays, being in use.

    `older_than`: only what was not used for so many seconds. Raises NotFoundError before anything is removed.
    """
    before = None if older_than is None else time.time() - older_than
    removed, kept = [], []
    with cache_errors(cache_folder()):
        found = list(_items())
        blobs = {match[1] for key in keys if (match := _BLOB_KEY.fullmatch(key))}
        known = {item.key: item.files for item, _ in found}
        for key in keys:
            if key not in known and not (_BLOB_KEY.fullmatch(key) and _has_blob(key)):
                held = ", ".join(sorted(name for name, files in known.items() if files)) or "nothing"
                raise NotFoundError(f"{key} is not in the cache {cache_folder()}; it holds {held}")
        for item, take in found:
            single = item.key == "blobs" and "blobs" not in keys and blobs
            if keys and item.key not in keys and not single:
                continue
            gone, left = take(blobs if single else None, before)
            removed += [gone] if gone.files else []
            kept += [left] if left.files else []
    return removed, kept


_Take = Callable[[set[str] | None, float | None], tuple[Item, Item]]


def _items() -> Iterator[tuple[Item, _Take]]:
    """Each item, and the function that removes it."""
    blobs = list(own_parts("blobs"))
    yield _of_blobs(blob for folder in blobs for blob in blob_cache.cached_blobs(folder)), _blob_taker(blobs)
    for folder in own_parts("models"):
        for model in model_cache.kept_models(folder):
            yield _of_model(model), _model_taker(model)
        notes = _named([folder / "digests"], "[0-9a-f]{64}")
        yield _with_taker("models/digests", "digests of large files of models", notes, notes=True)
        parts = _named([folder], rf"{re.escape(PART)}.*")
        yield _with_taker("models/unfinished", "models whose fetching was interrupted", parts)
    for key, pattern, what in _NOTES:
        yield _with_taker(key, what, _named(own_parts(key), pattern), notes=True)
    for key, what in _WORK:
        yield _with_taker(key, what, _named(own_parts(key), ".*"))


def _has_blob(key: str) -> bool:
    digest = key.partition("/")[2]
    return any((folder / digest[:2] / digest).exists() for folder in own_parts("blobs"))


def _of_blobs(blobs: Iterable[blob_cache.CachedBlob]) -> Item:
    blobs = list(blobs)
    return Item(
        "blobs",
        "blobs of stores",
        len(blobs),
        sum(blob.size for blob in blobs),
        max((blob.used_at for blob in blobs), default=None),
        sum(blob.size for blob in blobs if blob.in_use),
    )


def _blob_taker(folders: Sequence[Path]) -> _Take:
    def take(digests: set[str] | None, before: float | None) -> tuple[Item, Item]:
        def wanted(blob: blob_cache.CachedBlob) -> bool:
            return (digests is None or blob.digest in digests) and (before is None or blob.used_at < before)

        gone = [blob for folder in folders for blob in blob_cache.remove_blobs(folder, wanted)]
        left = [blob for folder in folders for blob in blob_cache.cached_blobs(folder) if wanted(blob)]
        return _of_blobs(gone), _of_blobs(left)

    return take


def _of_model(model: model_cache.KeptModel) -> Item:
    files, size, changed = _measured([model.folder])
    used = changed if model.used_at is None else model.used_at
    return Item(f"models/{model.folder.name}", model.of or "a model", files, size, used, size if model.in_use else 0)


def _model_taker(model: model_cache.KeptModel) -> _Take:
    def take(_: set[str] | None, before: float | None) -> tuple[Item, Item]:
        item = _of_model(model)
        none = replace(item, files=0)
        if before is not None and (item.used_at or 0) >= before:
            return none, none
        return (item, none) if model_cache.remove_model(model.folder) else (none, replace(item, used_bytes=item.bytes))

    return take


def _with_taker(key: str, what: str, paths: Sequence[Path], notes: bool = False) -> tuple[Item, _Take]:
    """An item of files without locks: `notes`, which may go at any time, or what may be of a process for a day."""

    def item_of(chosen: Sequence[Path]) -> Item:
        return Item(key, what, *_measured(chosen))

    def take(_: set[str] | None, before: float | None) -> tuple[Item, Item]:
        now, gone, left = time.time(), list[Path](), list[Path]()
        for path in paths:
            changed = _measured([path])[2] or 0.0
            if before is not None and changed >= before:
                continue
            (gone if notes or now - changed >= _SETTLED_SECONDS else left).append(path)
        removed = item_of(gone)
        for path in gone:
            _delete(path)
        return removed, item_of(left)

    return item_of(paths), take


def _named(folders: Iterable[Path], pattern: str) -> list[Path]:
    """What is in these folders by such a name. The folders stay, for processes that write into them."""
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return [path for path in found if re.fullmatch(pattern, path.name)]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _measured(paths: Iterable[Path]) -> tuple[int, int, float | None]:
    """Files, bytes and last change of files and folders; links are not followed."""
    files, size, changed = 0, 0, None
    for path in paths:
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        for each in (path, *inner):
            try:
                found = each.lstat()
            except FileNotFoundError:  # removed at this moment
                continue
            changed = max(changed or 0.0, found.st_mtime)
            if each.is_symlink() or not each.is_dir():
                files, size = files + 1, size + found.st_size
    return files, size, changed
