"""The benchmark of the artifact store runs on both stores and prints a figure for each row."""

from __future__ import annotations

import json

import pytest

from benchmarks.artifacts import main

ROWS = ["write", "publish", "unchanged", "open", "cold", "warm", "verify", "verified"]


@pytest.mark.parametrize("store", ["local", "s3"])
def test_every_row_is_measured(store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", "set by the benchmark, restored after it")
    main(["--stores", store, "--blobs", "40", "--large", "1"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [figure["row"] for figure in figures] == ROWS
    for figure in figures:
        assert figure["value"] > 0
        assert figure["ratio"] is None or figure["ratio"] == pytest.approx(figure["value"] / figure["baseline"], 1e-4)
        assert (figure["store"], figure["blobs"], figure["unit"]) == (store, 40, "s")
