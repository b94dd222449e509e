"""Reading processes side by side: how many there are, and that what they read does not depend on their number."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.refresh import readers
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.readers import Readers, processes_for
from tests.refresh.conftest import MakePipeline, refresh

MB = 1 << 20


def test_there_are_as_many_as_pay() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [processes_for(size, 3) for size in (0, 7 * MB, 8 * MB, 1000 * MB)] == [1, 1, 2, 3]
    assert processes_for(1 << 40, None) == cores


def test_each_is_used_by_one_at_a_time_and_started_when_needed() -> None:
    class Reader:
        closed = False

        def close(self) -> None:
            self.closed = True

    made: list[Any] = []
    make: Callable[[], Any] = lambda: made.append(Reader()) or made[-1]  # noqa: E731
    pool = Readers(make, 3)
    with pool.one() as one, pool.one() as two:
        assert one is not two
    with pool.one() as again:
        assert again in (one, two), "one that was used before is taken first"
    pool.close()
    assert len(made) == 3 and all(reader.closed for reader in made)


def test_parts_are_the_same_by_one_process_and_by_several(
    make_pipeline: MakePipeline,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (source / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    started: list[str] = []
    reader = Extraction.reader
    monkeypatch.setattr(readers, "_BYTES_OF_ONE", 1)
    monkeypatch.setattr(Extraction, "reader", lambda extraction: started.append("one") or reader(extraction))
    found = []
    for processes in (1, 3):
        started.clear()
        where = {"source": {"include": ["**"]}, "store": {"uri": str(tmp_path / f"store-{processes}")}}
        with caplog.at_level(logging.INFO, "memorag_pipeline"):
            refreshed = refresh(make_pipeline(**where, compute={"extract_processes": processes}))
        assert len(started) == processes * len(refreshed.extracted)
        found.append({role: refreshed.plan[role] for role in ("documents", "chunks", "quarantine")})
    assert found[0] == found[1]
    assert found[0]["quarantine"]
    assert re.search(r"extracted [\d.]+ [kM]B so far, [\d.]+ MB/s", caplog.text)
    shown = caplog.text + capsys.readouterr().err  # by whom depends on what this process has shown progress for
    assert re.search(r"documents extracted or kept: .* documents/s, [\d.]+ MB/s", shown)
