"""Files of a job's rows beside the warehouse."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorag_pipeline.corpus.readers.excel import excel_sheets
from memorag_pipeline.errors import ExportError, StorageError, WarehouseError
from memorag_pipeline.jobs import export
from memorag_pipeline.jobs.answers.load import load
from memorag_pipeline.jobs.load import check_warehouse
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.jobs.answers.test_load import RUN, write_plan
from tests.warehouse.answer_rows import answers, passage

FORMULA = "=HYPERLINK(A1)"

Make = Callable[..., Pipeline]


@pytest.fixture
def make(make_spec: Callable[..., CorpusSpec], tmp_path: Path) -> Make:
    def make(**export: Any) -> Pipeline:
        job = {
            "questions": {"uri": "questions.jsonl"},
            "warehouse": {"database": str(tmp_path / "w.duckdb")},
            "export": {"uri": str(tmp_path / "export"), **export},
        }
        return Pipeline(make_spec("source", jobs={"faq": job}))

    return make


def exported(pipeline: Pipeline, *batches: pa.Table, run: Run = RUN) -> Path:
    plan = write_plan(pipeline, list(batches), sum(batch.num_rows for batch in batches))
    return Path(str(load(pipeline, plan, run)["export"]).removeprefix("file://"))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("text", [FORMULA, "+1", "-1", "@A1", "\t=1", " =1", "\r\n-1", "\uff1d1", "\x00=1"])
def test_no_text_in_a_csv_file_is_a_formula(make: Make, text: str) -> None:
    path = exported(make(), answers(1, status="answered", answer=text, question=text))
    (row,) = cells(path)
    assert row["answer"] == row["question"] == f"'{text}"


def test_other_texts_and_numbers_are_as_they_are(make: Make) -> None:
    text = 'a;=1, "b"\nsecond line, ü 漢'
    table = answers(1, status="answered", answer=text, cost=0.5, evidence=[passage("x") | {"used": True}])
    path = exported(make(), table)
    (row,) = cells(path)
    assert (row["answer"], row["cost"], row["error"]) == (text, "0.5", "")
    assert row["sources"] == f"[1] {passage('x')['uri']}" and "clues" not in row
    # Quoted, or a spreadsheet that separates by ; would begin a cell at "=1".
    assert '"a;=1, ""b""' in path.read_text(encoding="utf-8-sig")


def test_a_workbook_holds_texts_not_formulas(make: Make) -> None:
    long = "😀" * 20_000
    path = exported(
        make(format="xlsx"), answers(1, status="answered", answer=FORMULA, question="a\x01b", generation_model=long)
    )
    names, row = (list(cells.values()) for cells in next(iter(excel_sheets(path.read_bytes()))).rows.values())
    found = dict(zip(names, row, strict=False))
    assert found["answer"] == FORMULA and found["question_id"] == "q0"
    with zipfile.ZipFile(path) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet and "<f " not in sheet
    assert f"cut: {len(long):,} characters" in sheet and "a_x0001_b" in sheet


def test_parquet_holds_every_column(make: Make) -> None:
    path = exported(make(format="parquet"), answers(2), answers(1, question_id="q2"))
    assert pq.read_table(path).equals(pa.concat_tables([answers(2), answers(1, question_id="q2")]))


def test_each_run_has_one_file_and_a_repeated_run_replaces_its_own(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    first = exported(pipeline, answers(1))
    second = exported(pipeline, answers(2), run=Run("run-2", datetime(2026, 1, 2, tzinfo=UTC)))
    assert exported(pipeline, answers(3)) == first
    assert [len(cells(path)) for path in (first, second)] == [3, 2]
    assert first.name.endswith("-v1.csv") and first.name < second.name
    folder = tmp_path / "export"
    assert files(folder) == [str(path.relative_to(folder)) for path in (first, second)]


def test_a_file_whose_rows_end_in_an_error_is_absent(make: Make, tmp_path: Path) -> None:
    pipeline = make()

    def torn() -> Any:
        yield from answers(1).to_batches()
        raise StorageError("no connection")

    assert pipeline.spec.jobs["faq"].export is not None
    with pytest.raises(StorageError, match="no connection"):
        export.Export(pipeline.spec.jobs["faq"].export).write(pipeline, "faq", 1, RUN, answers(1).schema, torn())
    assert files(tmp_path) == []


def test_more_rows_than_a_sheet_has_are_refused_before_anything_is_loaded(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export, "SHEET_ROWS", 2)
    with pytest.raises(ExportError, match="room for 2 rows, not for 3; set format: parquet or csv"):
        exported(make(format="xlsx"), answers(3))
    assert not (tmp_path / "w.duckdb").exists()
    exported(make(), answers(3))


def test_rows_that_the_warehouse_refuses_are_not_exported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("something else")
    with pytest.raises(WarehouseError):
        exported(make(), answers(1))
    assert not (tmp_path / "export").exists()


def test_the_address_of_an_export_is_checked_before_the_work(make: Make) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        check_warehouse(make(uri="nowhere://bucket/x").spec.job("faq"))


def test_a_uri_alone_is_a_csv_export_in_any_store(make_spec: Callable[..., CorpusSpec], tmp_path: Path) -> None:
    job = {
        "questions": {"uri": "q.csv"},
        "warehouse": {"database": str(tmp_path / "w.duckdb")},
        "export": "memory://bucket/a",
    }
    pipeline = Pipeline(make_spec("source", jobs={"faq": job}))
    uri = load(pipeline, write_plan(pipeline, [answers(1)], 1), RUN)["export"]
    assert uri.startswith(f"memory://bucket/a/{pipeline.spec.corpus}/faq/") and uri.endswith("-v1.csv")
