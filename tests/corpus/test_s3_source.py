"""Objects of S3 are read by their key, whatever it looks like, with one request each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import s3fs

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.s3_source import object_pages
from memorag_pipeline.corpus.source import FirstPage, Source
from memorag_pipeline.specs.source import SourceSpec
from tests.fixtures.plain_bucket import PlainBucket, plain_bucket
from tests.fixtures.s3 import S3Server

KEYS = (
    "same",
    "same/child.md",
    "same/child.md/grandchild.md",
    "versions.md?versionId=abc",
    "versions.md",
    "?versionId=1",
    "two//slashes.md",
    "//begins.md",
    "./here.md",
    "../above.md",
    "a/./b.md",
    "a/../b.md",
    "b.md",
    "..",
    "ends/",
    "ends//",
    "hash#1.md",
    "query?a=b&c=d.md",
    "%2e%2e/coded.md",
    "plus+and space.md",
    "new\nline.md",
    "n" * 1024,
    "日本語/文書.md",
)
MARKERS = ("folder/", "folder/deep/", "job_$folder$", "same/")


@pytest.fixture(scope="module")
def bucket() -> Iterator[PlainBucket]:
    with plain_bucket() as bucket:
        yield bucket


@pytest.fixture(autouse=True)
def objects(bucket: PlainBucket) -> None:
    bucket.objects = {key: f"words of {key}".encode() for key in KEYS} | dict.fromkeys(MARKERS, b"")
    bucket.read, bucket.before_read = [], lambda key: None


def source_of(bucket: PlainBucket, folder: str = "", **values: object) -> Source:
    uri = f"s3://{bucket.name}{folder}"
    return Source(SourceSpec.model_validate({"uris": [uri], "storage_options": bucket.options, **values}))


def test_each_key_is_listed_and_read_as_it_is(bucket: PlainBucket) -> None:
    source = source_of(bucket)
    items = source.list()
    assert [item.uri for item in items] == sorted(f"s3://{bucket.name}/{key}" for key in KEYS)
    for item in items:
        data, now = source.read(item.uri, 2000)
        assert (data.decode(), now) == (f"words of {item.uri.removeprefix(f's3://{bucket.name}/')}", item)
    assert sorted(bucket.read) == sorted(KEYS)


def test_a_folder_that_is_an_object_too_gives_what_is_below_it(bucket: PlainBucket) -> None:
    source = source_of(bucket, "/same")
    assert [item.uri.rpartition("same/")[2] for item in source.list()] == ["child.md", "child.md/grandchild.md"]
    assert [source.read(item.uri, 2000)[1] for item in source.list()] == list(source.list())


def test_objects_without_bytes_are_passed_over_only_where_they_are_folders(bucket: PlainBucket) -> None:
    bucket.objects = {"empty.md": b"", "job_$folder$": b"", "folder/": b"", "price_$folder$": b"5 dollars"}
    assert [item.uri.rpartition("/")[2] for item in source_of(bucket).list()] == ["empty.md", "price_$folder$"]


def test_records_are_told_by_key(bucket: PlainBucket) -> None:
    source = source_of(bucket, records={"include": ["same/**"]})
    told = {item.uri.removeprefix(f"s3://{bucket.name}/"): source.holds_records(item.uri) for item in source.list()}
    assert {key for key, records in told.items() if records} == {"same/child.md", "same/child.md/grandchild.md"}


def test_what_goes_or_changes_after_the_listing_is_told(bucket: PlainBucket) -> None:
    source = source_of(bucket)
    before = {item.uri: item for item in source.list()}
    gone, other = f"s3://{bucket.name}/b.md", f"s3://{bucket.name}/same"
    bucket.before_read = lambda key: bucket.objects.update({"same": b"other"}) or bucket.objects.pop("b.md", None)
    with pytest.raises(Refused) as refused:
        source.read(gone, 2000)
    assert (refused.value.reason, refused.value.detail) == ("download_failed", "is gone since it was listed")
    data, now = source.read(other, 2000)
    assert data == b"other" and now.identity != before[other].identity


def test_reading_stops_at_the_limit(bucket: PlainBucket) -> None:
    bucket.objects = {"long.md": b"x" * 5_000_000, "empty.md": b""}
    source = source_of(bucket)
    data, now = source.read(f"s3://{bucket.name}/long.md", 3_000_000)
    assert (len(data), now.size) == (3_000_001, 5_000_000)
    assert source.read(f"s3://{bucket.name}/empty.md", 10)[0] == b""


def test_a_versioned_bucket_gives_the_newest_version(s3_server: S3Server) -> None:
    name, filesystem = s3_server.new_bucket(), s3fs.S3FileSystem(**s3_server.options())
    filesystem.call_s3("put_bucket_versioning", Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"older words", b"newer words"):
        filesystem.call_s3("put_object", Bucket=name, Key="a.md", Body=body)
    filesystem.call_s3("put_object", Bucket=name, Key="deleted.md", Body=b"words")
    filesystem.call_s3("delete_object", Bucket=name, Key="deleted.md")
    source = Source(SourceSpec.model_validate({"uris": [f"s3://{name}"], "storage_options": s3_server.options()}))
    (item,) = source.list()
    assert source.read(item.uri, 100) == (b"newer words", item)


def test_a_listing_holds_one_page_and_asks_for_the_next(bucket: PlainBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = s3fs.S3FileSystem(**bucket.options)
    asked, second = 0, threading.Event()

    def call(request: Callable[[], Any]) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            second.set()
        return request()

    pages = object_pages(filesystem, bucket.name, call)
    first = next(pages)
    assert [path for path, _ in first] == [f"{bucket.name}/{key}" for key in sorted([*KEYS, *MARKERS])[:2]]
    assert second.wait(10) and asked == 2
    assert sum(map(len, pages)) + 2 == len({*KEYS, *MARKERS})
    monkeypatch.setattr(s3fs.S3FileSystem, "_find", lambda *_, **__: pytest.fail("all of it was listed at once"))
    assert len(source_of(bucket).list()) == len(KEYS)


def test_the_first_page_of_a_bucket_is_one_request(bucket: PlainBucket) -> None:
    assert source_of(bucket).first_page() == FirstPage(2, 2, False)  # the server's pages have two keys
    assert source_of(bucket, include=["b.md"]).first_page() == FirstPage(2, 0, False)
    bucket.objects = {"docs/": b"", "docs/a.md": b"words"}
    assert source_of(bucket, "/docs").first_page() == FirstPage(1, 1, True)
