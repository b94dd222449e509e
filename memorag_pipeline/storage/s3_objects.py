"""Objects in an S3 bucket, through s3fs.

Create-only is the condition `If-None-Match: *`, on single PUTs and on the completion of multi-part uploads, which
S3 and SeaweedFS (tested) decide for exactly one of many writers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from fsspec.core import url_to_fs

from memorag_pipeline.errors import StorageError
from memorag_pipeline.storage.objects import StoredObject

_PART = 16 << 20
_CONFLICTS = 5  # S3 answers some writes that race with "conflict, try again" before it says who won
_LARGEST_COPY = 5 << 30  # of S3 in one request; s3fs copies larger objects in parts
_PARTS_AT_ONCE = 4  # bounds the memory that a transfer takes
# A wrong address is told within half a minute, a server that hangs within three; throttling is waited out.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard", "total_max_attempts": 4}}


class S3Objects:
    """A bucket, or a folder in one. `options` are those of `s3fs.S3FileSystem`."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        config = {**_PATIENCE, **options.get("config_kwargs", {})}
        try:
            # Without a cache of listings: another process may have written since.
            self._fs, root = url_to_fs(uri, **{**options, "config_kwargs": config, "use_listings_cache": False})
            self._fs.connect()
            self._fs.retries = 2  # multiplies the attempts above
        except (TypeError, ValueError, BotoCoreError) as error:
            raise StorageError(f"{uri}: the storage options are not accepted: {error}") from error
        self.root = str(root).rstrip("/")
        self.uri = f"s3://{self.root}"
        self._bucket = self.root.split("/")[0]
        if not self._bucket:
            raise StorageError(f"{uri}: names no bucket; write s3://bucket/folder")

    def create(self, path: str, data: bytes) -> bool:
        return self._unless_exists(lambda: self._fs.pipe_file(path, data, mode="create"))

    def create_from_file(self, path: str, source: Path) -> bool:
        transfer = {"chunksize": _PART, "max_concurrency": _PARTS_AT_ONCE}
        return self._unless_exists(lambda: self._fs.put_file(str(source), path, mode="create", **transfer))

    def put(self, path: str, data: bytes) -> None:
        with self._os_errors():
            self._fs.pipe_file(path, data)

    def read(self, path: str) -> bytes:
        with self._os_errors():
            return bytes(self._fs.cat_file(path, max_concurrency=1))  # more would ask for the size first

    def pieces(self, path: str) -> Iterator[bytes]:
        with self._os_errors(), self._fs.open(path, "rb", cache_type="none") as file:
            while piece := file.read(_PART):
                yield piece

    def download(self, path: str, target: Path) -> None:
        with self._os_errors():
            self._fs.get_file(path, str(target), chunksize=_PART, max_concurrency=_PARTS_AT_ONCE)

    def stat(self, path: str) -> StoredObject:
        with self._os_errors():
            found = self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key(path))
            return StoredObject(path, int(found["ContentLength"]), found["LastModified"])

    def listing(self, folder: str) -> list[StoredObject]:
        with self._os_errors():
            try:
                found = self._fs.find(folder, detail=True)
            except FileNotFoundError as error:  # an empty folder gives an empty list
                raise self._no_bucket() from error
        # s3fs gives the folder itself when there is nothing in it but the server remembers it.
        return [
            StoredObject(str(path), int(info["size"]), info["LastModified"])
            for path, info in found.items()
            if info["type"] == "file"
        ]

    def touch(self, path: str) -> None:
        """Copy the object onto itself within the server."""
        with self._os_errors():
            if self.stat(path).size <= _LARGEST_COPY:
                source = {"Bucket": self._bucket, "Key": self._key(path)}
                call = {"CopySource": source, **source, "Metadata": {}, "MetadataDirective": "REPLACE"}
                self._fs.call_s3("copy_object", **call)
            else:
                self._fs.cp_file(path, path)

    def delete(self, path: str) -> None:
        with self._os_errors():
            self._fs.rm_file(path)

    def _key(self, path: str) -> str:
        return path[len(self._bucket) + 1 :]

    def _unless_exists(self, write: Callable[[], object]) -> bool:
        for _ in range(_CONFLICTS):
            try:
                with self._os_errors():
                    write()
            except FileExistsError:
                return False
            except BlockingIOError:
                continue
            return True
        raise TimeoutError(f"other writers were in the way {_CONFLICTS} times")

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        """Tell apart what s3fs and the libraries below it raise, as OSErrors that the other backends raise too."""
        try:
            yield
        except NoCredentialsError as error:
            raise PermissionError("no credentials: give key and secret, a connection, or AWS_ variables") from error
        except (BotoCoreError, ClientError, HttpError) as error:
            raise ConnectionError(str(error)) from error
        except OSError as error:
            response = getattr(error.__cause__, "response", None) or {}
            code = response.get("Error", {}).get("Code")
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
