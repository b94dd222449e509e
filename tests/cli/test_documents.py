"""`memorag documents`: what a version has read, one document, and what changed in it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_app import memorag
from tests.refresh.conftest import MakePipeline, make_pipeline, refresh

__all__ = ["make_pipeline"]


def test_documents_are_listed_shown_and_compared(make_pipeline: MakePipeline, source: Path) -> None:
    for old in source.iterdir():
        old.unlink()
    (source / "fees.md").write_text("# Fees\n\nA berth costs 40 [crowns].\n\n## Winter\n\nNothing.\n")
    (source / "port.md").write_text("# Port\n\nOpen all year.\n")
    pipeline = make_pipeline(source={"uris": [str(source)], "include": ["*.md"]})
    refresh(pipeline).publish()
    uri = pipeline.store.uri

    listed = json.loads(memorag("documents", uri, "--json").stdout)
    assert [(row["uri"].rpartition("/")[2], row["title"]) for row in listed] == [
        ("fees.md", "Fees"),
        ("port.md", "Port"),
    ]
    assert "2 documents of version 1 of " in memorag("documents", uri).stdout

    shown = memorag("documents", uri, "fees.md").stdout
    assert "A berth costs 40 [crowns]." in shown and "Winter" in shown and "Chunks" in shown
    row = json.loads(memorag("documents", uri, listed[0]["uri"], "--json").stdout)
    assert row["text"][row["headings"][1]["start"] :].startswith("## Winter")
    assert [chunk["ordinal"] for chunk in row["chunks"]] == list(range(len(row["chunks"]))) != []

    (source / "fees.md").write_text("# Fees\n\nA berth costs 45 [crowns].\n\n## Winter\n\nNothing.\n")
    refresh(pipeline).publish()
    changed = json.loads(memorag("documents", uri, "fees.md", "--since", "1", "--json").stdout)
    assert {line for line in changed if line[:1] in "+-" and line[1:2] not in "+-"} == {
        "-A berth costs 40 [crowns].",
        "+A berth costs 45 [crowns].",
    }
    assert "nothing changed" in memorag("documents", uri, "port.md", "--since", "1").stdout

    assert memorag("documents", uri, "gone.md").exit_code == 4
    assert memorag("documents", uri, "--since", "1").exit_code == 2
