"""Times in the answers of S3 are those that botocore reads, and cost less."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import s3fs
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.storage.backends import s3_times
from memorag_pipeline.storage.backends.s3_times import read_times_fast, time_of
from tests.fixtures.plain_bucket import plain_bucket

FORMS = (
    *("2026-11-30T22:17:53Z", "2026-11-30T22:17:53.123Z", "2026-11-30T22:17:53.1234567Z", "2026-11-30T22:17:53+01:00"),
    *("2026-11-30T22:17:53", "20261130T221753Z", "2026-11-30 22:17:53Z", "Thu, 01 Jan 2026 00:00:00 GMT", "1422172800"),
)


@pytest.mark.parametrize("text", FORMS)
def test_each_form_is_the_time_that_botocore_reads(text: str) -> None:
    assert time_of(text) == parse_timestamp(text)
    assert time_of(1422172800) == parse_timestamp(1422172800)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_every_time_of_a_listing_is_read(moment: datetime) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    assert time_of(text) == parse_timestamp(text)


@pytest.mark.parametrize("text", ["2026-11-30Tomorrow", "2026-13-30T22:17:53Z", "never"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        time_of(text)


def test_listings_are_read_so(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[object]()
    monkeypatch.setattr(s3_times, "time_of", lambda value: read.append(value) or parse_timestamp(value))
    with plain_bucket() as bucket:
        bucket.objects = {"a.md": b"words"}
        filesystem = s3fs.S3FileSystem(**bucket.options, skip_instance_cache=True)
        read_times_fast(filesystem)
        session = filesystem.session
        assert [item["LastModified"].year for item in filesystem.ls(bucket.name, detail=True)] == [2026]
        read_times_fast(filesystem)
    assert read == ["2026-01-01T00:00:00.000Z"] and filesystem.session is session
