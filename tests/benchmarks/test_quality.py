"""The table of quality: gap closed with its error, and figures that a file has are not computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures import Report
from benchmarks.quality import ALL, NO_CONTEXT, Given, _done, _gap

MEMORY = Given("uniform", 4, 1)
SETTINGS = {"model": "m", "dtype": "float32", "window": 256, "documents": 3, "adapter": "one", "device": "d"}


def test_gap_closed_is_a_ratio_of_means() -> None:
    found = _gap(MEMORY, {NO_CONTEXT: [3.0, 4.0, 5.0], ALL: [2.0, 2.0, 2.0], MEMORY: [2.5, 3.0, 3.5]})
    assert found == {"gap_closed": pytest.approx(0.5), "standard_error": pytest.approx(0.0)}


def test_its_error_is_that_of_documents_that_differ() -> None:
    found = _gap(MEMORY, {NO_CONTEXT: [1.0] * 4, ALL: [0.0] * 4, MEMORY: [0.4, 0.6, 0.4, 0.6]})
    assert found == {"gap_closed": pytest.approx(0.5), "standard_error": pytest.approx(0.1154700538 / 2)}


def test_the_ends_of_the_gap_close_none() -> None:
    assert _gap(ALL, {ALL: [1.0]}) == {"gap_closed": None, "standard_error": None}


def test_what_a_file_has_for_the_same_settings_is_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "quality.jsonl"
    beacon = Given("beacon", 4, 1, "int8")
    for subject in (MEMORY, beacon):
        record = {
            "benchmark": "quality",
            "kind": subject.kind,
            "ratio": subject.ratio,
            "sink": subject.sink,
            "codec": subject.codec,
        }
        Report("quality", SETTINGS, path).write({**record, "losses": [1.0, 2.0, 3.0]})
    Report("memory", SETTINGS, path).write({"benchmark": "memory", "row": "open"})
    assert _done(path, SETTINGS) == {MEMORY: [1.0, 2.0, 3.0], beacon: [1.0, 2.0, 3.0]}
    assert _done(path, {**SETTINGS, "adapter": "other"}) == {MEMORY: [1.0, 2.0, 3.0]}
    assert _done(path, {**SETTINGS, "documents": 4}) == {}
    assert _done(None, SETTINGS) == {}
