"""The tables of a version by number: found without going through all blobs for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.version_tables import VersionTables


def test_the_blobs_of_a_role_are_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [
        ManifestBlob(role=role, path=f"{role}/{number:05d}.parquet", digest=f"{number:064x}", size=number)
        for role in ("documents", "chunks")
        for number in range(40)
    ]
    manifest = Manifest(
        corpus="many",
        language="en",
        parent=None,
        spec_fingerprint="0" * 64,
        spec={},
        models=(),
        blobs=tuple(blobs),
        counts={},
    )
    tables = VersionTables(CorpusStore(str(tmp_path)), 1, manifest)
    asked: list[str] = []
    of_role = Manifest.of_role

    def counted(self: Manifest, role: str) -> list[ManifestBlob]:
        asked.append(role)
        return of_role(self, role)

    monkeypatch.setattr(Manifest, "of_role", counted)
    for number in (7, 3, 39, 7):
        for role in ("documents", "chunks"):
            assert tables.numbered(role, number) == ManifestBlob(
                role=role, path=f"{role}/{number:05d}.parquet", digest=f"{number:064x}", size=number
            )
    assert asked == ["documents", "chunks"]
    with pytest.raises(CorruptBlobError, match="names part 40 of the chunks, of which the version has 40"):
        tables.numbered("chunks", 40)
