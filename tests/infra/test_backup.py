"""A copy made in the order of docs/deploy.md, while versions are published, is a whole store."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.verify import verify
from tests.conftest import REPOSITORY
from tests.storage.conftest import manifest_of


def test_a_copy_in_the_order_of_the_page_has_all_that_its_records_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    page = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    folders = re.findall(r"^\| \d \| `(\w+)/` \|", page, re.MULTILINE)
    assert len(folders) == 6
    root, copy = tmp_path / "kb" / "topics", tmp_path / "copy" / "topics"
    store = CorpusStore(str(root), {})

    def publish(text: bytes) -> None:
        version = store.versions.publish(manifest_of(store, documents=text), text.decode()).version
        store.channels.promote("production", version, "tests", "newest")

    publish(b"before")
    for folder in folders:
        if (root / folder).exists():
            shutil.copytree(root / folder, copy / folder)
        publish(f"after {folder}".encode())

    restored = CorpusStore(str(copy), {})
    versions = restored.versions.retained()
    assert versions == [1, 2]
    assert restored.channels.targets()["production"] in versions
    assert [verify(restored, version) for version in versions] == [[], []]
