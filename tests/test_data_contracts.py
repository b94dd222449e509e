"""docs/data-contracts.md says what the schemas are."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from memorag_pipeline import schemas
from memorag_pipeline.warehouse import tables
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "data-contracts.md").read_text(encoding="utf-8")


def documented(table: str) -> list[tuple[str, str]]:
    section = re.split(r"\n##+ ", PAGE.split(f"\n### {table}\n", 1)[1], maxsplit=1)[0]
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \|", section, re.MULTILINE)
    return [(name, kind.strip()) for name, kind in rows if name != "column"]


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        ("inventory", schemas.INVENTORY),
        ("documents", schemas.DOCUMENTS),
        ("chunks", schemas.CHUNKS),
        ("quarantine", schemas.QUARANTINE),
        ("shards", schemas.SHARDS),
        ("sections", schemas.SECTIONS),
        ("embeddings", schemas.embeddings(384, weighed=True)),
        ("segment_rows", schemas.SEGMENT_ROWS),
        ("segment_mask", schemas.SEGMENT_MASK),
        ("index_rows", schemas.INDEX_ROWS),
        ("questions", schemas.QUESTIONS),
        ("routed_questions", schemas.ROUTED_QUESTIONS),
        ("clues", schemas.CLUES),
        ("answers", schemas.ANSWERS),
        ("warehouse evidence", tables.EVIDENCE_ROWS),
        ("warehouse runs", tables.RUN_ROWS),
        ("warehouse quarantine", tables.QUARANTINE_ROWS),
        ("summaries", schemas.SUMMARIES),
    ],
)
def test_the_page_lists_every_column_with_its_type(table: str, schema: pa.Schema) -> None:
    def described(field: pa.Field) -> str:
        kind = re.sub(r"item: | not null", "", str(field.type)).replace("[384]", "[dimensions]")
        return kind + (", nullable" if field.nullable else "")

    assert documented(table) == [(field.name, described(field)) for field in schema]
