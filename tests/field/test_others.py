"""Cases of the field without a separate file: warehouses, large and many files, words, docs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.retrieval.terms import terms_of
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse
from tests.conftest import REPOSITORY
from tests.field.cases import Case, each_case, texts
from tests.field.reading import read_corpus
from tests.fixtures.corpus import spec_of
from tests.refresh.conftest import refresh
from tests.warehouse.answer_rows import KEY, answers

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@each_case(others=True)
def test_it_is_as_people_expect(case: Case, tmp_path: Path) -> None:
    if case.name not in BY_HAND:
        pytest.skip(f"{case.name}: no check by hand is written")
    BY_HAND[case.name](case.check, tmp_path)


def _many(check: dict[str, Any], folder: Path) -> None:
    """100 files instead of 3,000: the work of a refresh grows with the changed files, not with all files."""
    source = folder / "source"
    source.mkdir()
    for number in range(100):
        (source / f"{number:04d}.txt").write_text(f"Words of file {number}.\n")
    pipeline = Pipeline(
        spec_of(source, source={"uris": [str(source)], "documents_per_part": 32}, store={"uri": str(folder / "store")})
    )
    refresh(pipeline).publish()
    os.utime(source / "0001.txt", ns=(1, 1))
    (source / "0002.txt").write_text("Other words.\n")
    inventory = take_inventory(pipeline)
    counts = [extract(pipeline, work) for work in inventory["extract"]]
    read = sum(each["documents"] - each["reused"] for each in counts)
    assert (inventory["counts"]["changed"], read) == (check["extracted"], check["extracted"])


def _huge(check: dict[str, Any], folder: Path) -> None:
    """Files without lines, without spaces, and minified: read in time, and cut into chunks of bounded length."""
    source = folder / "source"
    source.mkdir()
    (source / "line.txt").write_text("The quay is a wall of stone. " * 4_000)
    (source / "spaces.txt").write_text("quay" * 20_000)
    (source / "minified.json").write_text(str([{"quay": number} for number in range(6_000)]).replace("'", '"'))
    limits = {"uris": [str(source)], "timeout_seconds": 60}
    pipeline = Pipeline(spec_of(source, source=limits, store={"uri": str(folder / "store")}))
    corpus = read_corpus(pipeline)
    assert check == {"exit": 0} and not corpus.refused and len(corpus.documents) == 3
    assert all(chunk["tokens"] <= 200 for chunk in corpus.chunks)


def _reserved_words(check: dict[str, Any], folder: Path) -> None:
    spec = WarehouseSpec(database=str(folder / "answers.duckdb"), dataset="order")
    assert check == {"exit": 0} and DuckDBWarehouse(spec).merge(answers(2), "select", KEY) == 2
    assert DuckDBWarehouse(spec).query('SELECT * FROM "order"."select"').num_rows == 2


def _locked_file(check: dict[str, Any], folder: Path) -> None:
    path = folder / "answers.duckdb"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdin is not None and holder.stdout.readline()
        with pytest.raises(MemoragError, match="still in use") as caught:
            DuckDBWarehouse(WarehouseSpec(database=str(path)), lock_seconds=0).merge(answers(1), "answers", KEY)
        holder.stdin.close()
    assert caught.value.exit_code == check["exit"]


def _foreign_table(check: dict[str, Any], folder: Path) -> None:
    path = folder / "answers.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA memorag; CREATE TABLE memorag.answers (id INTEGER, answer VARCHAR)")
        connection.execute("INSERT INTO memorag.answers VALUES (1, 'theirs')")
    with pytest.raises(MemoragError) as caught:
        DuckDBWarehouse(WarehouseSpec(database=str(path))).merge(answers(1), "answers", KEY)
    told = str(caught.value)
    assert check["error_has"] in told and "constraint" not in told
    assert all(name in told for name in ("memorag.answers", "question_id", "warehouse.table"))
    with duckdb.connect(str(path)) as connection:
        columns = connection.execute("SELECT * FROM memorag.answers").fetchall()
    assert columns == [(1, "theirs")]


def _terms(check: dict[str, Any], folder: Path) -> None:
    words = [*texts(check["terms"]), "தமிழ்", "বাংলা", "ภาษาไทย", "العَرَبِيَّة", "שָׁלוֹם", "İstanbul", "क्षेत्र"]
    assert [word for word in words if len(terms_of(word)) != 1] == []
    assert terms_of(check["terms"]) == [check["terms"]]


def _pooling(check: dict[str, Any], folder: Path) -> None:
    """The model's own declaration is followed if the spec says nothing; a spec that says otherwise is reported."""
    values = spec_of(folder, store={"uri": str(folder / "store")}).model_dump(mode="json", exclude_unset=True)
    told = []
    for pooling in ({}, {"pooling": "cls"}):
        values["embedding"] = {"model": "package:all-minilm-l6-v2", **pooling}
        path = folder / "spec.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        told.append(CliRunner().invoke(app, ["validate", str(path)]).output)
    assert check == {"warns": True} and "pooling" in told[1]


def _docs(check: dict[str, Any], folder: Path) -> None:
    docs = {path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs").glob("*.md")}
    docs["README.md"] = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    denied = [name for name, text in docs.items() if re.search(r"`memorag ask`[^.]*\buses no endpoint", text)]
    assert check == {"consistent": True} and denied == []
    assert re.search(r"`memorag ask TARGET.*\bendpoint is paid", docs["cli.md"])


BY_HAND: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "many/": _many,
    "huge/": _huge,
    "warehouse: order.select": _reserved_words,
    "warehouse: locked file": _locked_file,
    "warehouse: foreign table": _foreign_table,
    "bm25 terms": _terms,
    "embedding.pooling default": _pooling,
    "docs: ask and endpoints": _docs,
}
