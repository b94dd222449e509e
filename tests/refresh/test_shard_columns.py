"""Sections and shards as columns: the plan is that of sections taken one by one, with few Python objects."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest, value_digest
from memorag_pipeline.refresh.shard_plan import Bounds, Shard, ShardColumns, grouped, plan_exact
from memorag_pipeline.refresh.shard_sections import ShardSection, each_section, section_columns
from memorag_pipeline.refresh.shard_tables import section_table, shard_table

BOUNDS = Bounds(max_tokens=10, min_tokens=2)
MOST_BYTES = 700  # of Python objects for each section; a section as an object with its row has 2,000

texts = st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy"), st.integers(1, 12))  # text, heading, tokens
corpora = st.lists(st.lists(texts, max_size=4), max_size=6)  # sections by part


def parts_of(corpus: list[list[tuple[str, str, int]]]) -> list[list[ShardSection]]:
    found, number = list[list[ShardSection]](), 0
    for part in corpus:
        found.append([])
        for text, heading, tokens in part:
            uri, content = f"memory://{number:04d}", f"{heading}: {text}"
            found[-1].append(ShardSection(text_digest(uri)[:16], uri, number % 2, 9, tokens, content, content, text))
            number += 1
    return found


def one_by_one(sections: list[ShardSection]) -> list[list[ShardSection]]:
    """The groups of the first section with each text."""
    first: dict[str, ShardSection] = {}
    for section in sections:
        first.setdefault(section.text, section)
    return grouped(list(first.values()), BOUNDS)


@given(corpora)
def test_shards_are_those_of_the_sections_one_by_one(corpus: list[list[tuple[str, str, int]]]) -> None:
    parts = parts_of(corpus)
    sections = section_columns(parts)
    planned = plan_exact(sections, BOUNDS)
    shards, wanted = planned.some(range(len(planned))), one_by_one([each for part in parts for each in part])
    assert [[(each.uri, each.content) for each in shard.sections] for shard in shards] == [
        [(each.uri, each.content) for each in group] for group in wanted
    ]
    assert planned.ids == [value_digest([group[0].document_id, group[0].start])[:16] for group in wanted]
    assert list(planned.contents()) == [shard.contents for shard in shards]
    assert planned.sums(planned.sections["tokens"].to_numpy()) == [shard.tokens for shard in shards]
    again = ShardColumns.of(shards)
    assert again.sections.equals(planned.sections) and again.bounds.tolist() == planned.bounds.tolist()


@given(corpora)
def test_each_section_names_the_first_shard_that_has_it_or_else_its_text(
    corpus: list[list[tuple[str, str, int]]],
) -> None:
    parts = parts_of(corpus)
    sections = section_columns(parts)
    planned = plan_exact(sections, BOUNDS)
    holder: dict[str, str] = {}
    for shard in planned.some(range(len(planned))):
        for content in shard.contents:
            holder.setdefault(content, shard.shard_id)
    copies: dict[str, str] = {}
    for section in (each for part in parts for each in part):
        if section.content in holder:
            copies.setdefault(section.text, holder[section.content])
    table = section_table(sections.replace_schema_metadata({"from": "the parent"}), planned)
    assert table.schema.equals(schemas.SECTIONS, check_metadata=True)
    assert table["shard_id"].to_pylist() == [
        holder.get(each.content) or copies[each.text] for part in parts for each in part
    ]
    assert table["part"].to_pylist() == [number for number, part in enumerate(parts) for _ in part]
    assert list(each_section(sections)) == [each for part in parts for each in part]


def test_what_is_in_no_document_any_more_is_stale() -> None:
    ((old, new),) = parts_of([[("a", "x", 3), ("b", "x", 4)]])
    kept = ShardColumns.of([Shard("1", "base", (old, new)), Shard("2", "delta", (old,))])
    table = shard_table(kept, section_columns([[new]]))
    assert table.schema.equals(schemas.SHARDS)
    assert table.select(["shard_id", "ordinal", "stale"]).to_pylist() == [
        {"shard_id": "1", "ordinal": 0, "stale": True},
        {"shard_id": "1", "ordinal": 1, "stale": False},
        {"shard_id": "2", "ordinal": 0, "stale": True},
    ]


def test_planning_keeps_no_object_for_each_section() -> None:
    count = 10_000
    digests = [value_digest(number) for number in range(count)]
    columns = {
        **{name: pa.array(digests) for name in ("document_id", "uri", "content", "key", "text")},
        **{name: pa.array([100] * count, pa.int64()) for name in ("start", "end")},
        **{name: pa.array([100] * count, pa.int32()) for name in ("tokens", "part")},
    }
    sections = pa.table({name: columns[name] for name in schemas.SECTIONS.names if name != "shard_id"})
    del columns, digests
    tracemalloc.start()
    planned = plan_exact(sections, Bounds(4096, 512))
    rows = shard_table(planned, sections)
    section_table(sections, planned)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Counter(rows["stale"].to_pylist()) == {False: count}
    assert peak < MOST_BYTES * count
