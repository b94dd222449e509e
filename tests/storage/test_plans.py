"""Plans and work lists in the store: read as what they are, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from memorag_pipeline.errors import CorruptBlobError, PlanError
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import Plan, Unit, WorkList, read_plan, write_plan


class Weighed(Unit):
    tokens: int

    @property
    def weight(self) -> int:
        return self.tokens


class Units(Plan):
    names: tuple[str, ...]
    some: tuple[Weighed, ...]


PLAN = Units(names=("a", "b"), some=(Weighed(fingerprint="c", tokens=5),))


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path))


def test_a_plan_is_read_as_it_was_written(store: CorpusStore) -> None:
    assert read_plan(store.blobs, write_plan(store.blobs, PLAN), Units) == PLAN
    assert PLAN.weights("names") == {"a": 1, "b": 1}
    assert PLAN.weights("some") == {"c": 5}


def test_keys_of_another_release_are_ignored(store: CorpusStore) -> None:
    uri = store.blobs.uri(store.blobs.put_json({**PLAN.model_dump(), "later": 1}))
    assert read_plan(store.blobs, uri, Units) == PLAN


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"names": ["a"]}, r"\(some: Field required\)"),
        ({"names": ["a"], "some": [{"fingerprint": "c", "tokens": "many"}]}, r"\(some\.0\.tokens: "),
        (["a"], "valid dictionary"),
    ],
)
def test_a_malformed_plan_is_refused_with_its_file_and_field(store: CorpusStore, value: object, problem: str) -> None:
    uri = store.blobs.uri(store.blobs.put_json(value))
    with pytest.raises(PlanError, match=f"^{uri} is not a Units .*{problem}.*run the stage that wrote it again"):
        read_plan(store.blobs, uri, Units)


def test_a_plan_that_is_gone_is_a_blob_that_is_missing(store: CorpusStore) -> None:
    uri = write_plan(store.blobs, PLAN)
    Path(uri.removeprefix("file://")).unlink()
    with pytest.raises(CorruptBlobError, match="no such blob"):
        read_plan(store.blobs, uri, Units)


def test_any_work_list_tells_its_units(store: CorpusStore) -> None:
    for name in ("units", "parts"):
        uri = store.blobs.uri(store.blobs.put_json({name: [{"fingerprint": "a", "objects": []}], "parent": None}))
        assert [unit.fingerprint for unit in read_plan(store.blobs, uri, WorkList[Unit]).units] == ["a"]
