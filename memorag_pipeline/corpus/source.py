"""The source of a corpus: listing and reading its objects, over fsspec.

In:  the source section of a spec.
Out: the objects that match its globs, and their bytes.
Wrong: missing bucket or folder, no permission, no connection: `StorageError` with the URI. One object that is gone
       or forbidden, or a link that leads out of the source: `Refused`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import glob_translate

from memorag_pipeline.corpus.clutter import is_clutter
from memorag_pipeline.corpus.inventory import Inventory, Listing, SourceObject
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.s3_source import first_keys, is_folder_marker, is_s3, object_pages, read_object
from memorag_pipeline.errors import MissingDependencyError, StorageError
from memorag_pipeline.specs.source import SourceSpec
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.outages import Outages

logger = logging.getLogger(__name__)

_PAGE = 1000  # objects in a listing of S3
_MODIFIED = ("LastModified", "last_modified", "modified", "updated", "created")
# Denials that may concern one object alone, an archived one for instance; an expired token concerns all of them.
_FORBIDDEN = {"", "AccessDenied", "403", "Forbidden", "InvalidObjectState"}
_CLIENT_ERRORS = {"botocore", "aiobotocore", "aiohttp"}  # what s3fs lets through unchanged


@dataclass(frozen=True)
class FirstPage:
    """The first objects of a source, and how many of them its globs match; `whole` if there are no others."""

    objects: int
    matching: int
    whole: bool


class Source:
    """The objects of a source. Safe to read from in several threads."""

    def __init__(self, spec: SourceSpec) -> None:
        self._include = [re.compile(glob_translate(pattern)) for pattern in spec.include]
        self._default_exclude = spec.default_exclude
        self.left_out = 0  # objects matched by the globs but excluded by `default_exclude`, as last listed
        self._exclude = [re.compile(glob_translate(pattern)) for pattern in spec.exclude]
        options = options_for(spec)
        self._roots = [(uri, *_open(uri, options)) for uri in spec.uris]
        self._records = [re.compile(glob_translate(pattern)) for pattern in spec.records.include]
        self._folders = [os.path.realpath(root) for _, fs, root in self._roots if isinstance(fs, LocalFileSystem)]
        self._outages = Outages(f"source {', '.join(spec.uris)}")
        self._filesystems = {fs.unstrip_protocol(root).partition("://")[0]: fs for _, fs, root in self._roots}

    def list(self) -> Inventory:
        """All objects that the globs match."""
        found, left_out = Listing(), list[pa.Array]()
        for uri, fs, root in self._roots:
            for page in _pages(uri, fs, root, self._outages):
                admitted = [(path, info) for path, info in page if self._admits(_name(root, path))]
                clutter = {path for path, _ in admitted if self._default_exclude and is_clutter(path[len(root) :])}
                found.add(self._described(fs, path, info) for path, info in admitted if path not in clutter)
                left_out.append(pa.array([_uri_of(fs, path) for path in clutter], pa.string()))
        inventory = found.inventory()
        uris = pa.chunked_array(left_out, pa.string()).unique()
        uris = uris.filter(pc.invert(pc.is_in(uris, value_set=inventory.column("uri"))))
        self.left_out = len(uris)
        if self.left_out:
            examples = ", ".join(uris.take(pc.sort_indices(uris)).slice(0, 3).to_pylist())
            logger.info("source.default_exclude leaves out %d objects, such as %s", self.left_out, examples)
        return inventory

    def first_page(self) -> FirstPage:
        """A look at the source that takes one request, or a walk through as many files."""
        objects, matching, whole = 0, 0, True
        for uri, fs, root in self._roots:
            with _explained("list", uri):
                paths, all_of_it = _first_paths(fs, root)
            if not paths:  # nothing, a single object, or no such place
                paths = [path for page in _pages(uri, fs, root, self._outages) for path, _ in page]
            names = [(_name(root, path), path[len(root) :]) for path in paths]
            matching += sum(
                self._admits(name) and not (self._default_exclude and is_clutter(below)) for name, below in names
            )
            objects, whole = objects + len(paths), whole and all_of_it
        return FirstPage(objects, matching, whole)

    def read(self, uri: str, limit: int) -> tuple[bytes, SourceObject]:
        """The bytes of an object, at most `limit` + 1 of them, and the object as it was when they were read."""
        fs = self._filesystems[uri.partition("://")[0]]
        path = _path_of(fs, uri)
        if self._leads_out(fs, path):
            raise Refused("outside_source", "is a link to a file outside of source.uris")
        try:
            data, info = self._outages.call(lambda: _read(fs, path, limit), _outage_of(fs))
        except FileNotFoundError as error:
            self._require_roots(fs, error)
            raise Refused("download_failed", "is gone since it was listed") from None
        except Exception as error:
            code = _error_code(error)
            if isinstance(error, PermissionError) and code in _FORBIDDEN:
                raise Refused("download_failed", "permission denied") from None
            if explained := _explain(error, "read", uri):
                raise explained from error
            raise
        return data, _describe(uri, info)

    def holds_records(self, uri: str) -> bool:
        """Whether `source.records.include` names the object."""
        if not self._records:
            return False
        fs = self._filesystems[uri.partition("://")[0]]
        path = _path_of(fs, uri)
        names = [
            _name(root, path) for _, other, root in self._roots if other is fs and f"{path}/".startswith(f"{root}/")
        ]
        return any(pattern.match(name) for pattern in self._records for name in names)

    def _described(self, fs: Any, path: str, info: dict[str, Any]) -> SourceObject:
        item = _describe(_uri_of(fs, path), info)
        # Listed, so that it appears in quarantine; its target is not part of its identity.
        return SourceObject(item.uri, 0, None, None) if self._leads_out(fs, path) else item

    def _leads_out(self, fs: Any, path: str) -> bool:
        """Whether a local path is a link to a place outside of the roots."""
        if not isinstance(fs, LocalFileSystem) or not os.path.islink(path):
            return False
        target = os.path.realpath(path)
        return not any(f"{target}/".startswith(f"{folder.rstrip('/')}/") for folder in self._folders)

    def _require_roots(self, fs: Any, error: FileNotFoundError) -> None:
        """A single object may disappear; a missing bucket or folder must not look like many missing objects."""
        for uri, other, root in self._roots:
            if other is fs and not _exists(fs, root):
                raise _missing(uri) from error

    def _admits(self, name: str) -> bool:
        if any(pattern.match(name) for pattern in self._exclude):
            return False
        return any(pattern.match(name) for pattern in self._include)


def _name(root: str, path: str) -> str:
    """The name of an object as globs see it."""
    return path[len(root) :].lstrip("/") or path.rsplit("/", 1)[-1]


def _open(uri: str, options: dict[str, Any]) -> tuple[Any, str]:
    if uri.startswith(("s3://", "s3a://")):
        options = {**options, "use_listings_cache": False}  # it would be held for as long as the process lives
    try:
        fs, root = fsspec.core.url_to_fs(uri, **options)
    except ImportError as error:
        raise MissingDependencyError(f"source {uri}: {error}") from error
    except ValueError as error:
        raise StorageError(f"source {uri}: not a place that fsspec knows ({error})") from error
    if is_s3(fs):
        from memorag_pipeline.storage.backends.s3_times import read_times_fast

        read_times_fast(fs)
    return fs, root.rstrip("/")


def _read(fs: Any, path: str, limit: int) -> tuple[bytes, dict[str, Any]]:
    if is_s3(fs):
        return read_object(fs, path, limit)
    with fs.open(path, "rb") as file:
        return bytes(file.read(limit + 1)), getattr(file, "details", None) or fs.info(path)


def _first_paths(fs: Any, root: str) -> tuple[list[str], bool]:
    """The paths of the first files below `root`, and whether these are all."""
    if is_s3(fs):
        return first_keys(fs, root, _PAGE)
    found: list[str] = []
    for folder, _, names in fs.walk(root, **({"on_error": "raise"} if isinstance(fs, LocalFileSystem) else {})):
        found += [f"{folder}/{name}" for name in names if name]  # a root that is a file has one without a name
        if len(found) >= _PAGE:
            return found[:_PAGE], False
    return found, True


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    """Raise the errors of an access to the place `uri` as those that a user can act on."""
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(uri) from error
    except Exception as error:
        if explained := _explain(error, action, uri):
            raise explained from error
        raise


def _outage_of(fs: Any) -> Callable[[Exception], bool]:
    """What tells that a place cannot be reached."""
    if not is_s3(fs):
        return lambda error: isinstance(error, ConnectionError | TimeoutError)
    from memorag_pipeline.storage.backends.s3 import is_unreachable

    return is_unreachable


def _pages(uri: str, fs: Any, root: str, outages: Outages) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Path and description of every file below `root`, some at a time, as the store lists them."""
    fs.invalidate_cache()
    is_outage, empty = _outage_of(fs), True
    with _explained("list", uri):
        if is_s3(fs):
            for page in object_pages(fs, root, lambda request: outages.call(request, is_outage)):
                empty = empty and not page
                yield [(path, info) for path, info in page if not is_folder_marker(path, info)]
        if empty:  # or on no store with pages
            yield from _found(uri, fs, root, lambda request: outages.call(request, is_outage))


def _found(
    uri: str, fs: Any, root: str, call: Callable[[Callable[[], Any]], Any]
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The same by fsspec. Links to files count as files, links to folders are skipped."""
    # A folder that cannot be listed must not look like one whose documents were removed.
    options = {"on_error": "raise"} if isinstance(fs, LocalFileSystem) else {}
    found = call(lambda: fs.find(root, detail=True, **options))
    if not found and not _exists(fs, root):
        raise FileNotFoundError(root)
    skipped, page = 0, list[tuple[str, dict[str, Any]]]()
    for path, info in found.items():
        if info.get("islink"):
            try:
                info = fs.info(path)
            except OSError:
                info = {"type": "broken link"}
        if info["type"] != "file":
            skipped += 1
        elif not (is_folder_marker(path, info) if is_s3(fs) else path.endswith("/")):
            page.append((path, info))
        if len(page) == _PAGE:
            yield page
            page = []
    yield page
    if skipped:
        logger.warning("%s: %d links to folders and special files were passed over", uri, skipped)


def _exists(fs: Any, root: str) -> bool:
    """Whether the bucket or the local folder exists. Stores without folders always answer yes."""
    if isinstance(fs, MemoryFileSystem):
        return True
    return bool(fs.exists(root if isinstance(fs, LocalFileSystem) else root.split("/")[0]))


def _missing(uri: str) -> StorageError:
    return StorageError(f"source {uri}: there is no such bucket or folder; create it, or correct the URI")


def _describe(uri: str, info: dict[str, Any]) -> SourceObject:
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return SourceObject(uri, int(info["size"]), etag.strip('"'), None)
    if "mtime" in info:
        # Unpacking and copying keep the time of modification, even over a file of the same size. What Linux calls the
        # change time, and fsspec the creation, they cannot set back.
        modified: Any = max(info["mtime"], info["created"])
    else:
        modified = next((info[name] for name in _MODIFIED if info.get(name) is not None), None)
    if isinstance(modified, int | float):
        modified = datetime.fromtimestamp(modified, UTC)
    if isinstance(modified, datetime):
        modified = modified.astimezone(UTC).isoformat(timespec="microseconds")
    return SourceObject(uri, int(info["size"]), None, modified)


def _uri_of(fs: Any, path: str) -> str:
    """URI of a path; bytes of a local name that are not UTF-8 are written as \\xNN."""
    uri: str = f"s3://{path}" if is_s3(fs) else fs.unstrip_protocol(path)
    return uri if uri.isascii() else uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _path_of(fs: Any, uri: str) -> str:
    if is_s3(fs):
        return uri.partition("://")[2]  # a key may end with /, which fsspec takes away
    path: str = fs._strip_protocol(uri)
    if "\\x" in path and isinstance(fs, LocalFileSystem) and not os.path.lexists(path):
        named = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), os.fsencode(path))
        return os.fsdecode(named)
    return path


def _error_code(error: BaseException) -> str:
    """The error code of an S3 response, empty for everything else."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _explain(error: Exception, action: str, uri: str) -> StorageError | None:
    """The description of a failed access; None for a bug, which is raised unchanged."""
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):  # of botocore
        return StorageError(f"source {uri}: the storage options are not accepted: {error}; write http://host:port")
    if isinstance(error, PermissionError):
        return StorageError(f"cannot {action} source {uri}: permission denied; check the credentials and their rights")
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENT_ERRORS:
        return StorageError(
            f"cannot {action} source {uri}: {type(error).__name__}: {error};"
            " check the endpoint, the credentials and the network"
        )
    return None
