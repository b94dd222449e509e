"""The benchmark of a refresh: the days are those of the site, the proxy counts the traffic, lines are compared."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import s3fs

from benchmarks.knowledge_base import DAYS, FOLDER, read_days
from benchmarks.refresh import Bytes, _new_lines
from benchmarks.traffic import counted
from tests.fixtures.s3 import S3Server


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the knowledge base is not there")
def test_the_days_differ_as_the_site_did() -> None:
    days = read_days()
    changes = json.loads((FOLDER / "changes.json").read_text(encoding="utf-8"))
    for day in DAYS:
        assert len(days[day]) == changes["days"][f"day{day}"]["files"]
    summary = changes["changes"]["day0->day1"]["summary"]
    first, second = days[0], days[1]
    same = [path for path in first if first[path] == second.get(path)]
    assert len(same) == summary["unchanged"]
    assert sum(path in first and first[path] != data for path, data in second.items()) == summary["modified"]

    fewer, half = read_days(documents=5), read_days(half=True)
    constant = len([path for path in first if len({found.get(path) for found in days.values()}) == 1])
    assert len(first) - len(fewer[0]) == constant - 5
    assert len(first) - len(half[0]) == constant - constant // 2
    assert {path for path in second if path not in same} <= fewer[1].keys() & half[1].keys()


def test_the_proxy_counts_both_ways_by_time(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with counted(s3_server.endpoint) as traffic:
        fs = s3fs.S3FileSystem(**{**s3_server.options(), "endpoint_url": traffic.endpoint}, skip_instance_cache=True)
        began = datetime.now(UTC)
        fs.pipe_file(f"{bucket}/a", b"x" * 300_000)
        middle = datetime.now(UTC)
        assert fs.cat_file(f"{bucket}/a") == b"x" * 300_000
        ended = datetime.now(UTC) + timedelta(seconds=1)
    read, written = traffic.between(began, middle)
    assert 300_000 < written < 310_000 and read < 10_000
    read, written = traffic.between(middle, ended)
    assert 300_000 < read < 310_000 and written < 10_000


def test_new_lines_are_those_that_the_older_text_has_not() -> None:
    assert list(_new_lines("a\nb\nc\n", "a\nB\nc\nd\n")) == ["B\n", "d\n"]
    assert list(_new_lines("", "a\nb")) == ["a\n", "b"]
    assert list(_new_lines("a\n", "")) == []


def test_bytes_add_up_by_kind() -> None:
    assert (Bytes(1, 2, 3) + Bytes(10, 20, 30)).all == 66
