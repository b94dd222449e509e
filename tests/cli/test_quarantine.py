"""`memorag quarantine`: what a version leaves out, why, and what to do; and the page that lists the reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memorag_pipeline.corpus.quarantine import REASONS, advice
from tests.cli.test_app import memorag
from tests.conftest import REPOSITORY
from tests.corpus.documents import pdf
from tests.refresh.conftest import MakePipeline, make_pipeline, refresh

__all__ = ["make_pipeline"]


def test_what_is_left_out_is_shown_with_its_advice(make_pipeline: MakePipeline, source: Path) -> None:
    (source / "locked [old].rst").write_bytes(pdf("words", encrypted=True))
    (source / "empty.rst").write_text("")
    pipeline = make_pipeline()
    refresh(pipeline).publish()
    result = memorag("quarantine", pipeline.store.uri)
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert "leaves out 2 documents" in shown
    assert f"password (1): {advice('password')}" in shown and "locked [old].rst: is encrypted" in shown
    rows = json.loads(memorag("quarantine", pipeline.store.uri, "1", "--json").stdout)
    assert {row["reason"]: row["advice"] for row in rows} == {name: advice(name) for name in ("empty", "password")}
    assert memorag("quarantine", pipeline.store.uri, "7").exit_code == 4


@pytest.mark.parametrize("reason", REASONS)
def test_the_page_tells_every_reason_with_its_advice(reason: str) -> None:
    page = (REPOSITORY / "docs" / "ingestion.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", page.split("## Quarantine")[1], re.MULTILINE))
    assert found[reason] == advice(reason) and len(found) == len(REASONS)  # type: ignore[arg-type,index]
