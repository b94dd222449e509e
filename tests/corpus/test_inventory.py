"""Inventories say the same as lists of objects would, in columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline import schemas
from memorag_pipeline.corpus.inventory import Inventory, InventoryDifference, Listing, SourceObject
from memorag_pipeline.digests import text_digest

uris = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
values = st.none() | st.sampled_from(["", "a", "b"])
objects = st.lists(st.builds(SourceObject, uris, st.integers(0, 2), values, values), max_size=30)


def by_uri(items: list[SourceObject]) -> dict[str, SourceObject]:
    return {item.uri: item for item in items}


@given(st.lists(objects, max_size=4))
def test_objects_are_in_order_of_uri_and_of_two_the_last_counts(pages: list[list[SourceObject]]) -> None:
    listing = Listing()
    for page in pages:
        listing.add(page)
    found = listing.inventory()
    expected = sorted(by_uri([item for page in pages for item in page]).values(), key=lambda item: item.uri)
    assert list(found) == expected == [found[place] for place in range(len(found))]
    assert list(found.uris()) == [item.uri for item in expected]
    table = pa.Table.from_pylist([item.row() for item in expected], schema=schemas.INVENTORY)
    assert found.table.equals(table) and found.table.column("uri").num_chunks <= 1  # so its Parquet is the same


@given(objects, objects)
def test_a_difference_is_that_of_the_objects(now: list[SourceObject], before: list[SourceObject]) -> None:
    new, old = by_uri(now), by_uri(before)
    found = InventoryDifference.of(Inventory.of(now), Inventory.of(before))
    assert found.added == len(new.keys() - old.keys())
    assert found.removed == len(old.keys() - new.keys())
    assert found.changed == sum(new[uri] != old[uri] for uri in new.keys() & old.keys())
    assert found.same.to_pylist() == [old.get(uri) == new[uri] for uri in sorted(new)]


@given(objects)
def test_identities_are_those_of_the_objects(items: list[SourceObject]) -> None:
    found = Inventory.of(items)
    assert found.identities.to_pylist() == [item.identity[1] for item in found]


@given(objects, st.lists(uris, max_size=5))
def test_documents_are_found_by_id(items: list[SourceObject], others: list[str]) -> None:
    found, known = Inventory.of(items), by_uri(items)
    ids = {text_digest(uri)[:16]: uri for uri in [*known, *others]}
    for document_id, uri in ids.items():
        place = found.place(document_id)
        assert found.holds(document_id) == (uri in known) == (place is not None)
        assert place is None or found[place] == known[uri]
    assert found.among(ids) == {item.document_id: item for item in known.values()}
    assert not found.holds("") and not found.holds("of another kind")


def test_runs_are_the_rows_of_ranges_whatever_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Inventory.of(SourceObject(f"{number:03d}", number, None, "m") for number in range(100))
    ranges = [range(3, 4), range(4, 40), range(40, 41), range(60, 100)]
    expected = [[list(found[place].row().values()) for place in part] for part in ranges]
    for at_once in (1, 10, 16_384):
        monkeypatch.setattr("memorag_pipeline.corpus.inventory._AT_ONCE", at_once)
        assert list(found.runs(ranges)) == expected and list(found) == found[:]
