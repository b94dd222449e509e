"""The visit to a GPU, rehearsed at toy sizes: every section runs, one that fails or comes too late ends nothing else.

On CPUs: profiles, transfers and the kernels of CUDA alone are what only a GPU shows.
"""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_visit import Visit
from tests.memory.test_golden import CASES


def visited(*arguments: str) -> tuple[Visit, list[dict[str, Any]], str]:
    """A visit, its lines of JSON, and what was shown."""
    with redirect_stdout(StringIO()) as lines, redirect_stderr(StringIO()) as shown:
        visit = gpu.main(["--toy", *arguments])
    return visit, [json.loads(line) for line in lines.getvalue().splitlines()], shown.getvalue()


def test_a_rehearsal_goes_through_every_section(tmp_path: Path) -> None:
    path = tmp_path / "results" / "gpu.jsonl"
    visit, lines, shown = visited("--append", str(path))
    assert not visit.failed, shown
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == lines
    told = {figure["section"]: 0 for figure in lines}
    for figure in lines:
        assert figure["device"] and figure["torch"] == torch.__version__ and figure["toy"]
        told[figure["section"]] += not figure["what"].startswith("[")
    assert list(told) == list(gpu.SECTIONS) and all(told.values())
    words = {figure["what"]: figure["value"] for figure in lines}
    assert words["float32: memorized again"] == "same bits"
    assert words["float32: first tokens alike alone and together"] == "[24, 24, 24, 24]"
    assert words["recorded cases, float32"] == (f"{min(2, len(CASES))} of {min(2, len(CASES))}")
    table = shown.rpartition("\nwhat ")[2]
    assert all(figure["what"] in table for figure in lines)


def test_a_section_that_fails_is_told_and_the_next_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(visit: Visit) -> None:
        visit.say("so far", 1.0)
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setitem(gpu.SECTIONS, "kernels", (broken, 0))
    visit, lines, shown = visited("--only", "kernels", "memorize")
    assert visit.failed == ["kernels"] and "Traceback" in shown
    (failed,) = (figure for figure in lines if figure["value"] == "FAILED")
    assert failed["note"] == "RuntimeError: CUDA error: no kernel image is available"
    assert any(figure["what"] == "memorize 640 at ratio 4" for figure in lines)


def test_what_no_longer_fits_into_the_time_is_skipped() -> None:
    visit, lines, _ = visited("--seconds", "20", "--only", "device", "long")
    assert not visit.failed
    assert [figure["what"] for figure in lines if figure["value"] == "skipped"] == ["[long]"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_rehearsal_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU; rehearse with --toy" in capsys.readouterr().err
