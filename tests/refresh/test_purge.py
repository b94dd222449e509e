"""Which documents and shards a purge means; tests/integration/test_delta_refresh.py looks for what is left of them."""

from __future__ import annotations

import pyarrow as pa

from memorag_pipeline.corpus.inventory import Inventory, SourceObject
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.refresh.shard_sections import ShardSection

PURGE = Purge(["**/secret.md", "s3://bucket/private/**"])


def shard(shard_id: str, content: str, *uris: str) -> Shard:
    return Shard(shard_id, "base", (ShardSection("d", uris[0], 0, 1, 1, content, "key", content, uris[1:]),))


def test_globs_are_of_whole_uris() -> None:
    uris = ["s3://bucket/a/secret.md", "s3://bucket/private/b/c.md", "file:///x/secret.md"]
    others = ["s3://bucket/a/not-secret.md", "s3://other/private/c.md", "s3://bucket/secret.md.txt"]
    listed = Inventory.of(SourceObject(uri, 1, "etag", None) for uri in (*uris, *others))
    assert list(PURGE.admitted(listed).uris()) == sorted(others)


def test_shards_that_read_a_document_under_any_name_are_read_again() -> None:
    shards = [
        shard("now", "1", "s3://bucket/secret.md"),
        shard("before", "2", "s3://bucket/renamed.md", "s3://bucket/a.md", "s3://bucket/private/a.md"),
        shard("same text", "3", "s3://bucket/old-name.md"),
        shard("another", "4", "s3://bucket/b.md"),
    ]
    rows = [
        {"uri": "s3://bucket/a/secret.md", "content": "3"},
        {"uri": "s3://bucket/b.md", "content": "4"},
    ]
    sections = pa.Table.from_pylist(rows)
    assert PURGE.shards(shards, sections) == {"now", "before", "same text"}
    assert Purge([]).shards(shards, sections) == set()
