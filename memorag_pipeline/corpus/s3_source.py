"""Objects of a source in an S3 bucket, read by key, not by path.

In:  an s3fs filesystem, the bucket, the key as it was listed, and the most bytes to read.
Out: the bytes, at most one more than the limit, and the description of exactly that object.
Wrong: the OSErrors of s3fs, as for every other access.

Paths cannot name each key: s3fs takes an end such as `/` or `?versionId=1` for its own, and a key that is also the
folder of others for that folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fsspec.asyn import sync

Info = dict[str, Any]
Request = Callable[[], Any]

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


def object_pages(filesystem: Any, root: str, call: Callable[[Request], Any]) -> Iterator[list[tuple[str, Info]]]:
    """The objects below `root` in the store's order, a page at a time; `call` makes each request.

    The next page is asked for while one is handled. s3fs's `find` gives them all at once.
    """
    bucket, key, _ = filesystem.split_path(root)
    asked = {"Bucket": bucket, "Prefix": f"{key.lstrip('/')}/" if key else ""}

    def ask(token: str | None) -> Any:
        more = {} if token is None else {"ContinuationToken": token}
        return call(lambda: filesystem.call_s3("list_objects_v2", **asked, **more))

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(ask, None)
        while True:
            page = waiting.result()
            if page.get("IsTruncated"):
                waiting = ahead.submit(ask, page["NextContinuationToken"])
            yield [(f"{bucket}/{item['Key']}", {**item, "size": item["Size"]}) for item in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return


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
