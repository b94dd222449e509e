"""Objects of a source in an S3 bucket, read by key, not by path.

In:  an s3fs filesystem, the bucket, the key as it was listed, and the most bytes to read.
Out: the bytes, at most one more than the limit, and the description of exactly that object.
Wrong: the OSErrors of s3fs, as for every other access.

Paths cannot name each key: s3fs takes an end such as `/` or `?versionId=1` for its own, and a key that is also the
folder of others for that folder.
"""

from __future__ import annotations

import time
from typing import Any

from fsspec.asyn import sync

_PIECE = 1 << 20
_FOLDER_MARK = "_$folder$"  # of Hadoop and EMR


def is_s3(filesystem: Any) -> bool:
    """Whether a filesystem of fsspec is s3fs."""
    return bool(filesystem.protocol == ("s3", "s3a"))


def is_folder_marker(path: str, info: dict[str, Any]) -> bool:
    """Whether an object without content only marks a folder, as consoles and Hadoop create them."""
    return not info["size"] and path.endswith(("/", _FOLDER_MARK))


def first_keys(filesystem: Any, root: str, most: int) -> tuple[list[str], bool]:
    """The paths of the first objects below `root`, by one request, and whether these are all."""
    bucket, key, _ = filesystem.split_path(root)
    page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=most)
    paths = [(f"{bucket}/{item['Key']}", {"size": item["Size"]}) for item in page.get("Contents", [])]
    return [path for path, info in paths if not is_folder_marker(path, info)], not page.get("IsTruncated")


def read_object(filesystem: Any, path: str, limit: int) -> tuple[bytes, dict[str, Any]]:
    """The object at `path`: bucket, `/` and key."""
    from s3fs.core import S3_RETRYABLE_ERRORS

    bucket, _, _ = filesystem.split_path(path)
    key = path[len(bucket) + 1 :]
    for attempt in range(1, filesystem.retries + 1):
        answer = filesystem.call_s3("get_object", Bucket=bucket, Key=key)
        try:
            data = sync(filesystem.loop, _first_bytes, answer["Body"], limit + 1)
            break
        except S3_RETRYABLE_ERRORS:  # the connection broke while the object was sent
            if attempt == filesystem.retries:
                raise
            time.sleep(0.1 * 2**attempt)
    return data, {"ETag": answer.get("ETag"), "LastModified": answer["LastModified"], "size": answer["ContentLength"]}


async def _first_bytes(body: Any, most: int) -> bytes:
    data = bytearray()
    async with body:
        while len(data) < most and (piece := await body.read(min(_PIECE, most - len(data)))):
            data += piece
    return bytes(data)
