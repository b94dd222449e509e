"""The watcher of a source: one event for each new state, sent when uploads have settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

watcher = pytest.importorskip("memorag_operators.watcher")


def test_a_change_is_told_once_and_only_when_no_other_follows(
    source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = watcher.SourceTrigger(str(write_spec(make_spec(source), "topics")), every_seconds=30, quiet_seconds=7)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:  # the upload continues while the watcher waits for quiet
            (source / "more.rst").write_text("More.\n")
        if len(slept) == 4:
            (source / "unlisted").rename(source / "again.rst")
        if len(slept) == 6:
            source.rename(source.with_name("away"))
        if len(slept) == 8:
            source.with_name("away").rename(source)
            (source / "again.rst").unlink()

    (source / "unlisted").write_text("Again.\n")
    monkeypatch.setattr(watcher.asyncio, "sleep", sleep)
    events: list[Any] = []

    async def take() -> None:
        async for event in trigger.run():
            events.append((event.payload["listing"], tuple(slept)))
            if len(events) == 3:
                return

    asyncio.run(take())
    digests = [digest for digest, _ in events]
    assert digests[0] == digests[2] != digests[1]  # what was added in between is gone again
    assert events[0][1] == (7, 7)
    assert events[1][1][2:] == (30, 30, 7)
    assert events[2][1][5:] == (30, 30, 30, 7)


def test_a_trigger_is_made_again_from_what_it_stores() -> None:
    path, arguments = watcher.SourceTrigger("a.yaml", 300, 60).serialize()
    assert path == "memorag_operators.watcher.SourceTrigger"
    assert watcher.SourceTrigger(**arguments).serialize() == (path, arguments)
