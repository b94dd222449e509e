"""The next memory's file is fetched while one is asked; errors are told at its turn, and one memory is held."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.jobs.answers import recall as recalling
from memorag_pipeline.jobs.answers.memories_ahead import MemoriesAhead
from memorag_pipeline.jobs.answers.plans import RecallList
from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.memory.kinds import load
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline

WAIT = 60  # seconds, for what is expected to happen at once


class FakeVersion:
    """Fetches and opens memories, and notes which and in which thread; what is in `errors` is altered."""

    def __init__(self, **errors: Exception) -> None:
        self.store = None
        self.errors = errors
        self.opened: dict[str, int] = {}
        self.fetched: dict[str, int] = {}
        self.tried = {name: threading.Event() for name in "abcd"}

    def fetch_memory(self, shard_id: str) -> None:
        try:
            self._file(shard_id, self.fetched)
        finally:
            self.tried[shard_id].set()

    def open_memory(self, model: Any, shard_id: str) -> str:
        self._file(shard_id, self.opened)
        return f"the memory of {shard_id}"

    def _file(self, shard_id: str, noted: dict[str, int]) -> None:
        if shard_id in self.errors:
            raise self.errors[shard_id]
        noted[shard_id] = threading.get_ident()


Ahead = Callable[..., MemoriesAhead]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    monkeypatch.setattr(load, "load_memory_model", lambda *_: "the model")

    def make(version: FakeVersion, shard_ids: str) -> MemoriesAhead:
        settings: Any = SimpleNamespace(memory=None, language="en")
        return MemoriesAhead(version, settings, list(shard_ids))  # type: ignore[arg-type]

    return make


def test_the_next_file_is_fetched_while_one_is_asked_and_only_the_next(ahead: Ahead) -> None:
    version, here = FakeVersion(), threading.get_ident()
    with ahead(version, "abc") as memories:
        assert version.fetched == {}, "nothing was needed yet"
        for shard_id, following in (("a", "b"), ("b", "c"), ("c", None)):
            assert memories.open(shard_id) == ("the model", f"the memory of {shard_id}")
            if following is not None:
                assert version.tried[following].wait(WAIT)
                assert max(version.fetched) == following
    assert list(version.fetched) == ["b", "c"] and here not in version.fetched.values()
    assert version.opened == dict.fromkeys("abc", here)


def test_an_error_is_told_at_the_turn_of_its_memory(ahead: Ahead) -> None:
    version = FakeVersion(b=CorruptBlobError("the memory of b was altered"))
    with ahead(version, "abc") as memories:
        memories.open("a")
        assert version.tried["b"].wait(WAIT)
        with pytest.raises(CorruptBlobError, match="of b was altered"):
            memories.open("b")
    assert not version.tried["c"].is_set()


def test_the_error_of_a_memory_that_is_not_needed_harms_no_other(ahead: Ahead) -> None:
    version = FakeVersion(b=CorruptBlobError("the memory of b was altered"))
    with ahead(version, "abcd") as memories:
        memories.open("a")
        memories.open("c")
        assert version.tried["d"].wait(WAIT)
    assert list(version.opened) == ["a", "c"] and list(version.fetched) == ["d"]


def test_a_task_that_fails_leaves_no_thread(ahead: Ahead) -> None:
    version, before = FakeVersion(), threading.active_count()
    with pytest.raises(KeyboardInterrupt), ahead(version, "abc") as memories:
        memories.open("a")
        raise KeyboardInterrupt
    assert threading.active_count() == before


def test_recall_asks_each_shard_while_the_file_of_the_next_is_fetched(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = make_pipeline(clue_tokens=19, shards_per_question=3)
    lists = [fresh.read_work(uri, RecallList) for uri in route(fresh, "faq")["recall"]]
    units = tuple(unit for each in lists for unit in each.units)
    assert len(units) > 2
    fetched = {unit.shard_id: threading.Event() for unit in units}
    memories: weakref.WeakSet[Any] = weakref.WeakSet()
    asked: list[str] = []
    most_held = 0
    fetch_memory, open_memory = OpenedVersion.fetch_memory, OpenedVersion.open_memory
    recall_clues = recalling.recall_clues

    def fetch(version: OpenedVersion, shard_id: str) -> None:
        fetch_memory(version, shard_id)
        fetched[shard_id].set()

    def opened(version: OpenedVersion, model: Any, shard_id: str) -> Any:
        nonlocal most_held
        memory = open_memory(version, model, shard_id)
        memories.add(memory)
        most_held = max(most_held, len(memories))
        return memory

    def ask(model: Any, memory: Any, shard_id: str, *others: Any) -> Any:
        asked.append(shard_id)
        assert all(fetched[unit.shard_id].wait(WAIT) for unit in units[1 : len(asked) + 1])
        assert not any(fetched[unit.shard_id].is_set() for unit in units[len(asked) + 1 :])
        return recall_clues(model, memory, shard_id, *others)

    monkeypatch.setattr(OpenedVersion, "fetch_memory", fetch)
    monkeypatch.setattr(OpenedVersion, "open_memory", opened)
    monkeypatch.setattr(recalling, "recall_clues", ask)
    together = fresh.write_work(lists[0].model_copy(update={"units": units}))
    counts = recalling.recall(fresh, together)
    assert asked == [unit.shard_id for unit in units] and counts["shards"] == len(units)
    assert most_held == 1 and len(memories) == 0
