"""Retention: which versions of a corpus are kept, by the rules of its spec.

In:  the commit records of retained versions, the rules, and the versions that channels point to.
Out: the versions that no rule keeps; `apply` retires them.
Wrong: a version that a channel points to in the meantime is not retired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime

from memorag_pipeline.specs.store import RetentionSpec
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.versions import CommitRecord


def outdated(records: Sequence[CommitRecord], rules: RetentionSpec, pointed: Collection[int]) -> list[int]:
    """Numbers of the versions that no rule keeps, ascending. Days and weeks are those of `created_at` in UTC.

    Days and weeks without a version do not count, so the current date is not needed.
    """
    if rules.keeps_all:
        return []
    newest_first = sorted(records, key=lambda record: record.version, reverse=True)
    kept = {record.version for record in newest_first[: rules.last or 1]} | set(pointed)
    kept |= _newest_of_each(newest_first, _day, rules.daily or 0)
    kept |= _newest_of_each(newest_first, _week, rules.weekly or 0)
    return sorted(record.version for record in records if record.version not in kept)


def plan(store: CorpusStore, rules: RetentionSpec) -> list[int]:
    """The versions of `store` that `rules` do not keep."""
    records = [store.versions.record(number) for number in store.versions.retained()]
    return outdated(records, rules, store.channels.targets().values())


def apply(store: CorpusStore, rules: RetentionSpec, by: str) -> list[int]:
    """Retire the versions that `rules` do not keep, the oldest first; returns those that were retired."""
    retired = []
    for number in plan(store, rules):
        if number not in store.channels.targets().values():
            store.versions.retire(number, by, f"not kept by the rules: {describe(rules)}")
            retired.append(number)
    return retired


def describe(rules: RetentionSpec) -> str:
    """The rules in words."""
    parts = [f"last {rules.last}"] if rules.last else []
    parts += [f"{name} {count}" for name, count in (("daily", rules.daily), ("weekly", rules.weekly)) if count]
    return ", ".join(parts)


def _newest_of_each(
    newest_first: Iterable[CommitRecord], period: Callable[[CommitRecord], date], count: int
) -> set[int]:
    """The newest version of each of the last `count` periods that have one."""
    newest: dict[date, int] = {}
    for record in newest_first:
        newest.setdefault(period(record), record.version)
    return {newest[start] for start in sorted(newest, reverse=True)[:count]}


def _day(record: CommitRecord) -> date:
    return datetime.fromisoformat(record.created_at).astimezone(UTC).date()


def _week(record: CommitRecord) -> date:
    """The Monday of the record's week."""
    day = _day(record)
    return date.fromordinal(day.toordinal() - day.weekday())
