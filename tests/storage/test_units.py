"""The unit cache: what counts as done."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.storage import CorpusStore, Outcome, fingerprint


def record(store: CorpusStore, data: bytes = b"embedded") -> Outcome:
    ref = store.blobs.put_bytes(data)
    return store.units.record(
        Outcome(stage="embed", fingerprint="f" * 64, blobs={"embeddings": ref}, counts={"chunks": 3}, seconds=1.5)
    )


def test_an_outcome_is_found_by_stage_and_fingerprint(store: CorpusStore) -> None:
    assert store.units.find("embed", "f" * 64) is None
    outcome = record(store)
    assert store.units.find("embed", "f" * 64) == outcome
    assert store.units.find("memorize", "f" * 64) is None
    assert store.units.find("embed", "e" * 64) is None


def test_many_outcomes_are_found_in_the_order_asked_for(store: CorpusStore) -> None:
    made = [record(store).model_copy(update={"fingerprint": f"{number:064x}"}) for number in range(40)]
    for outcome in made[::2]:
        store.units.record(outcome)
    found = store.units.find_all("embed", [outcome.fingerprint for outcome in made])
    assert found == [outcome if number % 2 == 0 else None for number, outcome in enumerate(made)]
    assert store.units.find_all("embed", []) == []


def test_of_two_outcomes_the_last_stays(store: CorpusStore) -> None:
    record(store)
    again = record(store, b"embedded again")
    assert store.units.find("embed", "f" * 64) == again


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"stage": "embed"}', b"\xff\xfe"])
def test_a_record_that_cannot_be_read_counts_as_absent(
    store: CorpusStore, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record(store)
    (key,) = store.objects.list("units")
    store.objects.put(key, damage)
    assert store.units.find("embed", "f" * 64) is None
    assert f"{key} cannot be read; the unit is done again" in caplog.text


@pytest.mark.parametrize("left", [b"", b"embedde"])
def test_a_unit_without_its_blobs_counts_as_absent(store: CorpusStore, left: bytes) -> None:
    ref = record(store).blobs["embeddings"]
    store.objects.delete(ref.key)
    if left:
        store.objects.put(ref.key, left)
    assert store.units.find("embed", "f" * 64) is None
    assert record(store) == store.units.find("embed", "f" * 64)


inputs = st.dictionaries(st.text(min_size=1), st.recursive(st.integers() | st.text(), st.lists, max_leaves=5))


@given(inputs, inputs)
def test_fingerprints_are_equal_for_equal_inputs_only(first: dict[str, Any], second: dict[str, Any]) -> None:
    one, two = (fingerprint("embed", 1, inputs=values) for values in (first, dict(reversed(second.items()))))
    assert (one == two) == (first == second)
    assert one != fingerprint("embed", 2, inputs=first)
    assert one != fingerprint("index", 1, inputs=first)
