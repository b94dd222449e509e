"""Retention rules: which versions fall out of them, and that channels outweigh them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.specs.store import RetentionSpec
from memorag_pipeline.storage import BlobRef, CorpusStore, Manifest
from memorag_pipeline.storage.garbage import retention
from memorag_pipeline.storage.versions import CommitRecord

MONDAY = datetime(2026, 3, 2, 2, tzinfo=UTC)


def record(version: int, created: datetime) -> CommitRecord:
    return CommitRecord(
        version=version,
        parent=version - 1 or None,
        manifest=BlobRef(digest="0" * 64, size=1),
        write_id="w",
        run_id="run",
        created_at=created.isoformat(),
    )


NIGHTLY = [record(number + 1, MONDAY + timedelta(days=number)) for number in range(28)]  # four whole weeks


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (RetentionSpec(), range(1, 29)),
        (RetentionSpec(last=3), [26, 27, 28]),
        (RetentionSpec(daily=2), [27, 28]),
        (RetentionSpec(weekly=3), [14, 21, 28]),
        (RetentionSpec(last=2, weekly=9), [7, 14, 21, 27, 28]),
        (RetentionSpec(last=100), range(1, 29)),
    ],
)
def test_rules_keep_the_last_the_dailies_and_the_weeklies(rules: RetentionSpec, kept: list[int]) -> None:
    outdated = retention.outdated(NIGHTLY, rules, ())
    assert [item.version for item in NIGHTLY if item.version not in outdated] == list(kept)
    assert 5 not in retention.outdated(NIGHTLY, rules, {5})


def test_of_a_day_the_newest_is_kept_and_days_are_those_of_utc() -> None:
    east = timezone(timedelta(hours=9))
    moments = [MONDAY, (MONDAY + timedelta(hours=21)).astimezone(east), MONDAY + timedelta(hours=23)]
    records = [record(number, moment) for number, moment in enumerate(moments, start=1)]
    assert retention.outdated(records, RetentionSpec(daily=5), ()) == [1]


numbers = st.none() | st.integers(1, 12)


@given(
    st.lists(st.integers(0, 24 * 60), min_size=1, max_size=30),
    st.builds(RetentionSpec, last=numbers, daily=numbers, weekly=numbers),
    st.sets(st.integers(1, 30)),
)
def test_the_newest_and_what_channels_point_to_is_always_kept(
    hours: list[int], rules: RetentionSpec, pointed: set[int]
) -> None:
    """Whatever the clocks said when the versions were made: their order is that of their numbers."""
    records = [record(number, MONDAY + timedelta(hours=hour)) for number, hour in enumerate(hours, start=1)]
    outdated = set(retention.outdated(records, rules, pointed))
    assert not outdated & pointed
    assert len(records) not in outdated
    if rules.last is not None:
        assert not outdated & set(range(len(records) - rules.last + 1, len(records) + 1))
    # Those that are kept are kept when the rules are applied again.
    left = [item for item in records if item.version not in outdated]
    assert retention.outdated(left, rules, pointed) == []


def test_rules_are_applied_to_a_store(store: CorpusStore, make_manifest: Callable[..., Manifest]) -> None:
    for text in (b"one", b"two", b"three", b"four"):
        store.versions.publish(make_manifest(documents=text), "run")
    store.channels.promote("production", 2, "ann", "good")
    rules = RetentionSpec(last=1, daily=1)
    assert retention.plan(store, rules) == [1, 3]
    assert retention.apply(store, rules, "ann") == [1, 3]
    assert store.versions.retained() == [2, 4]
    assert store.versions.retired()[3].why == "not kept by the rules: last 1, daily 1"
    assert retention.apply(store, rules, "ann") == []
