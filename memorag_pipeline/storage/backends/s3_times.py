"""Times in the answers of S3, read by the standard library where that can.

In:  an s3fs filesystem that has not connected yet.
Out: the same, whose listings take about half of the processor: botocore reads the time of every object with the parser
     of dateutil, which takes any form of a time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp


def read_times_fast(filesystem: Any) -> None:
    """Give an s3fs filesystem a session that reads times so; one that has a session keeps it."""
    if filesystem.session is None:
        session = AioSession(**filesystem.kwargs)  # as s3fs makes it
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=time_of)
        filesystem.session = session


def time_of(value: Any) -> datetime:
    """The time of an answer: ISO 8601 as in listings, or any other form that botocore knows."""
    if isinstance(value, str) and value[10:11] == "T":
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
        if found is not None and found.tzinfo is not None:
            return found
    parsed: datetime = parse_timestamp(value)
    return parsed
