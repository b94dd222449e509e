"""Objects in an S3 bucket, through s3fs.

Create-only is the condition `If-None-Match: *`, on single PUTs and on the completion of multi-part uploads, which
S3 and SeaweedFS (tested) decide for exactly one of many writers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, SSLError
from botocore.exceptions import ConnectionError as NoConnection
from fsspec.core import url_to_fs
from s3fs.core import set_custom_error_handler

from memorag_pipeline.errors import StorageError
from memorag_pipeline.machine.threads import BLOBS
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.backends.s3_times import read_times_fast
from memorag_pipeline.storage.outages import Outages

T = TypeVar("T")

_PART = 16 << 20
_CONFLICTS = 5  # S3 answers some writes that race with "conflict, try again" before it says who won
_LARGEST_COPY = 5 << 30  # of S3 in one request; s3fs copies larger objects in parts
_BUSY = {429, 500, 502, 503, 504}
# Attempts of botocore, with waits that double, times those of s3fs around them: nine, so that a server which fails one
# request in seven loses one in 40 million. A wrong address is reported within half a minute, a server that hangs within
# three minutes, or nine if it hangs while it sends an object. Stages then wait longer: `Outages`.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard", "total_max_attempts": 3}}
_ROUNDS = 3


class S3Objects:
    """A bucket, or a folder in one. `options` are those of `s3fs.S3FileSystem`."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        config = {**_PATIENCE, **options.get("config_kwargs", {})}
        # Without a cache of listings: another process may have written since.
        self._options = {**options, "config_kwargs": config, "use_listings_cache": False}
        try:
            self._connected, self._process = self._connect(uri), os.getpid()
        except (TypeError, ValueError, AttributeError, BotoCoreError) as error:
            raise StorageError(f"{uri}: the storage options are not accepted: {error}") from error
        self.root = str(self._connected._strip_protocol(uri)).rstrip("/")
        self.uri = f"s3://{self.root}"
        self._bucket = self.root.split("/")[0]
        if not self._bucket:
            raise StorageError(f"{uri}: names no bucket; write s3://bucket/folder")
        self._outages = Outages(self.uri)

    @property
    def _fs(self) -> Any:
        """The connection of this process: after a fork the thread of a parent's connection does not exist."""
        if self._process != os.getpid():
            self._connected, self._process = self._connect(self.uri), os.getpid()
        return self._connected

    def _connect(self, uri: str) -> Any:
        connected, _ = url_to_fs(uri, **self._options)
        read_times_fast(connected)
        connected.connect()
        connected.retries = _ROUNDS
        return connected

    def create(self, path: str, data: bytes) -> bool:
        return self._unless_exists(lambda: self._fs.pipe_file(path, data, mode="create"))

    def create_from_file(self, path: str, source: Path) -> bool:
        transfer = {"chunksize": _PART, "max_concurrency": BLOBS}
        return self._unless_exists(lambda: self._fs.put_file(str(source), path, mode="create", **transfer))

    def put(self, path: str, data: bytes) -> None:
        self._ask(lambda: self._fs.pipe_file(path, data))

    def read(self, path: str, most: int, start: int = 0) -> bytes:
        return self._range(path, start, start + most)

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        for start, end in _ranges(most):
            piece = self._range(path, start, end)
            yield piece
            if len(piece) < end - start:
                return

    def download(self, path: str, target: Path, most: int) -> None:
        with target.open("wb") as file, ThreadPoolExecutor(BLOBS) as pool:

            def fetch(part: tuple[int, int]) -> None:
                os.pwrite(file.fileno(), self._range(path, *part), part[0])

            for _ in pool.map(fetch, _ranges(most)):
                pass

    def stat(self, path: str) -> StoredObject:
        found = self._tell("head_object", Bucket=self._bucket, Key=self._key(path))
        return _stored(path, found["ContentLength"], found)

    def listing(self, folder: str) -> Iterator[StoredObject]:
        for page in self._pages(Prefix=f"{self._key(folder)}/"):
            for item in page.get("Contents", []):
                # Some servers list the folder itself when there is nothing in it but they remember it.
                if not item["Key"].endswith("/"):
                    yield _stored(f"{self._bucket}/{item['Key']}", item["Size"], item)

    def entries(self) -> Iterator[str]:
        key = self._key(self.root)
        prefix = f"{key}/" if key else ""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            found = [item["Key"] for item in page.get("Contents", [])]
            found += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
            yield from (name.removeprefix(prefix) for name in found if name != prefix)

    def _pages(self, **asked: str) -> Iterator[dict[str, Any]]:
        """A listing page by page. s3fs's `find` tries each page less often than it tries other requests."""
        asked["Bucket"] = self._bucket
        while True:
            try:
                page = self._tell("list_objects_v2", **asked)
            except FileNotFoundError as error:  # an empty folder gives an empty list
                raise self._no_bucket() from error
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def touch(self, path: str) -> None:
        """Copy the object onto itself within the server."""
        if self.stat(path).size <= _LARGEST_COPY:
            source = {"Bucket": self._bucket, "Key": self._key(path)}
            self._tell("copy_object", CopySource=source, **source, Metadata={}, MetadataDirective="REPLACE")
        else:
            self._ask(lambda: self._fs.cp_file(path, path))

    def file(self, path: str) -> None:
        return None

    def delete(self, path: str) -> None:
        self._ask(lambda: self._fs.rm_file(path))

    def leftovers(self, before: datetime) -> Iterator[StoredObject]:
        """Uploads in parts that were neither completed nor aborted; their parts are paid for and in no listing."""
        key = self._key(self.root)
        asked = {"Bucket": self._bucket, "Prefix": f"{key}/" if key else ""}
        while True:
            page = self._tell("list_multipart_uploads", **asked)
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    name = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    with suppress(FileNotFoundError):  # finished since it was listed
                        size, path = self._uploaded(name), f"{self._bucket}/{upload['Key']}"
                        yield StoredObject(path, size, upload["Initiated"], upload["UploadId"])
            # SeaweedFS lists 10,000 and does not say where to continue: the others are found when these are gone.
            if not page.get("IsTruncated") or "NextKeyMarker" not in page:
                return
            asked |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    def discard(self, leftover: StoredObject) -> None:
        key = self._key(leftover.key)
        self._tell("abort_multipart_upload", Bucket=self._bucket, Key=key, UploadId=leftover.state)

    def _uploaded(self, upload: dict[str, Any]) -> int:
        """Bytes of the parts of an upload."""
        size = last = 0
        while True:
            page = self._tell("list_parts", **upload, PartNumberMarker=last)
            size += sum(int(part["Size"]) for part in page.get("Parts", []))
            if not page.get("IsTruncated"):
                return size
            last = page["NextPartNumberMarker"]

    def _tell(self, call: str, **asked: Any) -> Any:
        return self._ask(lambda: self._fs.call_s3(call, **asked))

    def _ask(self, request: Callable[[], T]) -> T:
        """What a request returns; stages wait for a store that cannot be reached."""
        with self._os_errors():
            return self._outages.call(request, is_unreachable)

    def _key(self, path: str) -> str:
        return path[len(self._bucket) + 1 :]

    def _range(self, path: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of an object, as far as it has them."""
        try:
            return bytes(self._ask(lambda: self._fs.cat_file(path, start=start, end=end)))
        except OSError as error:
            if _code(error) == "InvalidRange":  # the object ends before `start`
                return b""
            raise

    def _unless_exists(self, write: Callable[[], object]) -> bool:
        for _ in range(_CONFLICTS):
            try:
                self._ask(write)
            except FileExistsError:
                return False
            except BlockingIOError:
                continue
            return True
        raise TimeoutError(f"other writers were in the way {_CONFLICTS} times")

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        """Translate what s3fs and the libraries below it raise into the OSErrors that the other backends raise."""
        try:
            yield
        except NoCredentialsError as error:
            raise PermissionError("no credentials: give key and secret, a connection, or AWS_ variables") from error
        except (BotoCoreError, ClientError, HttpError) as error:
            raise ConnectionError(str(error)) from error
        except OSError as error:
            code = _code(error)
            if code == "NoSuchBucket":
                raise self._no_bucket() from error
            if code == "PreconditionFailed":  # s3fs looks for words that only some servers say
                raise FileExistsError(str(error)) from error
            if code == "ConditionalRequestConflict":
                raise BlockingIOError(str(error)) from error
            raise

    def _no_bucket(self) -> StorageError:
        return StorageError(
            f"{self.uri}: there is no bucket {self._bucket!r}; create it, or correct the URI or endpoint_url"
        )


def _ranges(most: int) -> list[tuple[int, int]]:
    """The parts of `most` bytes. The byte that only a too long object has is asked for together with the last part."""
    starts = range(0, max(most - 1, 1), _PART)
    return [(start, min(start + _PART, most) if start + _PART < most - 1 else most) for start in starts]


def _stored(path: str, size: int, found: Any) -> StoredObject:
    # A listing has fractions of seconds, a request for one object does not.
    state = f"{found.get('ETag')} {int(found['LastModified'].timestamp())}"
    return StoredObject(path, int(size), found["LastModified"], state)


def _code(error: OSError) -> str | None:
    """The code in the server's answer that s3fs made this error of."""
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code


def is_unreachable(error: Exception) -> bool:
    """Whether an error of s3fs says that the server cannot be reached, or that it is too busy or broken to answer."""
    if isinstance(error, SSLError):  # a certificate that does not fit
        return False
    if isinstance(error, OSError) and isinstance(error.__cause__, ClientError):
        return _is_passing(error.__cause__)
    return _is_passing(error) or isinstance(error, NoConnection | HTTPClientError | TimeoutError | ConnectionError)


def _is_passing(error: Exception) -> bool:
    """Whether an error that s3fs takes for a final one may be gone a moment later: the server is busy or restarts."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _BUSY
    return isinstance(error, HttpError)


set_custom_error_handler(_is_passing)
