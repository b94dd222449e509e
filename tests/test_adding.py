"""The walk-throughs of docs/adding.md: each example is registered where the page says, and used as a spec asks for it.

The memory kind, the generator and the store of the page are held by the contract tests of their kinds, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline.corpus.headings import Heading
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.text import FORMATS, read_text
from memorag_pipeline.errors import SpecError, WarehouseError
from memorag_pipeline.generators.open import GENERATORS, open_generator
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec, json_schema, read_spec
from memorag_pipeline.specs.generation import ENDPOINTS, EndpointTraits
from memorag_pipeline.specs.jobs import DESTINATIONS, Destination, WarehouseSpec
from memorag_pipeline.specs.memory_kinds import KINDS, KindTraits
from memorag_pipeline.storage.objects import BACKENDS
from memorag_pipeline.warehouse import WAREHOUSES, open_warehouse
from memorag_pipeline.warehouse.table_load import TableLoad
from tests.adding.asciidoc import ASCIIDOC
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding.md").read_text(encoding="utf-8")
SPEC = """\
corpus: topics
source: {uris: [source]}
store: {uri: "dict://knowledge"}
memory: {kind: tail, model: "package:smollm2-135m-instruct"}
embedding: {model: "package:all-minilm-l6-v2"}
generation: {model: any, max_new_tokens: 3, endpoint: {kind: canned}}
warehouse: {destination: sqlite, database: runs.sqlite}
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries in the tables that the page names."""
    monkeypatch.setitem(KINDS, "tail", KindTraits("only the last window.", positions="slot"))
    monkeypatch.setitem(ENDPOINTS, "canned", EndpointTraits("repeats the question.", url="http://127.0.0.1:1"))
    monkeypatch.setitem(GENERATORS, "canned", "tests.adding.canned_generator:CannedGenerator")
    monkeypatch.setitem(DESTINATIONS, "sqlite", Destination("SQLite"))
    monkeypatch.setitem(WAREHOUSES, "sqlite", "tests.adding.sqlite_warehouse:SqliteWarehouse")
    monkeypatch.setitem(BACKENDS, "dict", "tests.adding.dict_store:DictObjects")
    monkeypatch.setattr("memorag_pipeline.corpus.text.FORMATS", [ASCIIDOC, *FORMATS])


@pytest.fixture
def spec(tmp_path: Path, registered: None) -> CorpusSpec:
    """A spec that asks for all of them."""
    path = tmp_path / "topics.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return read_spec(path)


def test_without_the_entries_the_spec_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(SPEC, encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        read_spec(path)
    told = str(raised.value)
    for key, table in {"memory.kind": KINDS, "endpoint.kind": ENDPOINTS, "warehouse.destination": DESTINATIONS}.items():
        assert re.search(rf"{key}: should be {' '.join(map('.*{}.*'.format, table))}", told.replace("\n", "\n\n")), told


def test_a_spec_can_ask_for_what_was_added(spec: CorpusSpec, tmp_path: Path) -> None:
    assert spec.warehouse is not None and spec.generation.endpoint is not None
    assert (spec.memory.kind, spec.generation.endpoint.kind) == ("tail", "canned")
    assert spec.generation.endpoint.url == "http://127.0.0.1:1"
    assert spec.warehouse.database == str(tmp_path / "runs.sqlite")  # a file, found from the folder of the spec
    schema = json_schema()["$defs"]
    assert "tail" in schema["MemorySpec"]["properties"]["kind"]["enum"]


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("memory: {kind: tail, model: m, ratio: 4}", "memory.ratio: needs a compressing memory; kind tail keeps"),
        ("memory: {kind: tail, model: m, adapter: a}", "memory.adapter: has no use in a memory without beacons"),
        ("warehouse: {destination: sqlite}", "sqlite needs database, the path of its file"),
        ("generation: {model: m, endpoint: {kind: canned, api_version: x}}", "has no use for kind canned"),
    ],
)
def test_rules_between_keys_know_what_was_added(registered: None, added: str, problem: str, tmp_path: Path) -> None:
    section = added.partition(":")[0]
    lines = [line for line in SPEC.splitlines() if not line.startswith(f"{section}:")]
    (tmp_path / "topics.yaml").write_text("\n".join([*lines, added]), encoding="utf-8")
    with pytest.raises(SpecError, match=problem):
        read_spec(tmp_path / "topics.yaml")


def test_the_generator_writes_replies(spec: CorpusSpec) -> None:
    generator = open_generator(spec.generation, spec.memory)
    replies = generator.reply([[{"role": "user", "content": "one two three four"}]])
    assert [reply.text for reply in replies] == ["You said: one two three"]
    assert generator.count_tokens("one two") == 2


def test_the_warehouse_takes_all_rows_or_none(spec: CorpusSpec) -> None:
    assert isinstance(spec.warehouse, WarehouseSpec)
    warehouse = open_warehouse(spec.warehouse)
    rows = pa.table({"run": ["a", "b"], "seconds": [1.5, None]})
    assert warehouse.merge(rows, "runs", ["run"]) == 2
    assert warehouse.merge(rows.slice(1), "runs", ["run"]) == 1
    assert warehouse.query("SELECT * FROM memorag.runs ORDER BY run").equals(rows)

    def broken() -> Iterator[pa.RecordBatch]:
        yield from pa.table({"run": ["c"], "seconds": [0.0]}).to_batches()
        raise WarehouseError("no more rows")

    with pytest.raises(WarehouseError, match="no more rows"):
        warehouse.load_tables({"runs": TableLoad(rows.schema, broken(), ("run",))})
    assert warehouse.query("SELECT count(*) AS n FROM memorag.runs").to_pylist() == [{"n": 2}]
    with pytest.raises(WarehouseError, match=r"the query failed.*readonly"):
        warehouse.query("DELETE FROM memorag.runs")


def test_the_format_gives_a_document_its_headings(registered: None) -> None:
    data = b"= Cats\n\nThey purr.\n\n== At night\n\nThey walk.\n"
    found = read_text("cats.adoc", data, "en", Parser(), 1 << 20)
    assert (found.text, found.title, found.media_type) == (data.decode(), "Cats", "text/asciidoc")
    assert found.headings == [Heading(1, 0, "Cats"), Heading(2, data.index(b"== At"), "At night")]


def test_the_store_holds_a_corpus(spec: CorpusSpec) -> None:
    store = Pipeline(spec).store
    ref = store.blobs.put_bytes(b"hello")
    assert store.uri == "dict://knowledge/topics"
    assert Pipeline(spec).store.blobs.get_bytes(ref) == b"hello"


def test_the_page_names_files_and_tables_that_there_are() -> None:
    paths = set(re.findall(r"`((?:memorag_pipeline|tests|docs)/[\w/.]+\.\w+)`", PAGE))
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []
    tables: dict[str, Any] = {
        "KINDS": KINDS,
        "ENDPOINTS": ENDPOINTS,
        "GENERATORS": GENERATORS,
        "DESTINATIONS": DESTINATIONS,
        "WAREHOUSES": WAREHOUSES,
        "FORMATS": FORMATS,
        "BACKENDS": BACKENDS,
        "LOADERS": {},
    }
    assert all(f"`{name}`" in PAGE for name in tables)


def test_an_addition_costs_three_code_files_at_most() -> None:
    sections = re.split(r"(?m)^## ", PAGE)[1:]
    counted = {section.splitlines()[0]: len(re.findall(r"(?m)^\d\. ", section)) for section in sections}
    additions = {title: steps for title, steps in counted.items() if title.startswith("A ")}
    assert len(additions) == 5
    assert max(additions.values()) <= 3 < sum(additions.values())
