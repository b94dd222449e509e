"""Questions are read from JSONL, Parquet and SQL; a bad one is an error row, and only an unreadable source fails."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorag_pipeline.errors import QuestionError
from memorag_pipeline.jobs.answers import questions
from memorag_pipeline.jobs.answers.question_file import BATCH
from memorag_pipeline.jobs.answers.questions import MAX_CHARACTERS, questions_of_texts
from memorag_pipeline.schemas import QUESTIONS
from memorag_pipeline.specs.jobs import JobSpec
from tests.corpus.documents import pdf
from tests.corpus.readers.office import workbook


def job(tmp_path: Path, uri: str | Path) -> JobSpec:
    return JobSpec.model_validate(
        {"questions": {"uri": str(uri)}, "warehouse": {"database": str(tmp_path / "warehouse.duckdb")}}
    )


def read_questions(job: JobSpec) -> pa.Table:
    return pa.Table.from_batches(questions.read_questions(job), QUESTIONS)


def read_lines(tmp_path: Path, *lines: Any) -> list[dict[str, Any]]:
    """Questions of a file with these lines: bytes unchanged, other values as JSON."""
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    table = read_questions(job(tmp_path, path))
    assert table.schema == QUESTIONS
    return table.to_pylist()


def test_jsonl_rows_keep_their_order_and_further_keys_stay_out(tmp_path: Path) -> None:
    rows = read_lines(
        tmp_path,
        {"question_id": "a", "question": " What is a lambda? ", "document": "lambda"},
        b"",
        {"question_id": 7, "question": "What does pass do?"},
    )
    assert rows == [
        {"question_id": "a", "question": "What is a lambda?", "error": None},
        {"question_id": "7", "question": "What does pass do?", "error": None},
    ]


def test_a_question_without_id_gets_a_digest_of_its_text_made_unique_by_occurrence(tmp_path: Path) -> None:
    one, two, same = read_lines(
        tmp_path, {"question": "What is x?"}, {"question": "What is y?"}, {"question": "What is x?"}
    )
    assert len({one["question_id"], two["question_id"], same["question_id"]}) == 3
    assert same["question_id"] == one["question_id"] + "-2"
    again = read_lines(tmp_path, {"question": "What is y?"}, {"question": "What is x?"})
    assert [row["question_id"] for row in again] == [two["question_id"], one["question_id"]]


@pytest.mark.parametrize(
    ("line", "question_id", "problem"),
    [
        ({"question_id": "q"}, "q", "line 2: the question has no text"),
        ({"question_id": "q", "question": "  "}, "q", "line 2: the question has no text"),
        ({"question": None}, "line-2", "line 2: the question has no text"),
        ({"question": 5}, "line-2", "line 2: the question is not text but int"),
        ({"question": ["why"]}, "line-2", "line 2: the question is not text but list"),
        ({"question_id": {"a": 1}, "question": "Why?"}, "line-2", "question_id is neither text nor a whole number"),
        ({"question_id": True, "question": "Why?"}, "line-2", "question_id is neither text nor a whole number"),
        ({"question_id": "first", "question": "Why?"}, "line-2", "'first' is used on line 1"),
        (b'{"question": "cut', "line-2", "line 2 is not JSON"),
        (b"[" * 100_000, "line-2", "line 2 is not JSON"),
        (b'["Why?"]', "line-2", "line 2 is not a JSON object"),
        (b'{"question": "\xff\xfe"}', "line-2", "line 2 is not UTF-8"),
        (b'{"question": "\\ud800"}', "line-2", "not valid Unicode"),
        ({"question": "x" * (MAX_CHARACTERS + 1)}, "line-2", "has 20,001 characters; at most 20,000"),
    ],
)
def test_a_bad_line_is_an_error_row_and_the_others_are_untouched(
    tmp_path: Path, line: Any, question_id: str, problem: str
) -> None:
    first, bad, last = read_lines(
        tmp_path, {"question_id": "first", "question": "One?"}, line, {"question_id": "last", "question": "Two?"}
    )
    assert (first["error"], last["error"]) == (None, None)
    assert bad["question_id"] == question_id
    assert problem in bad["error"]


def test_an_id_that_looks_like_a_place_does_not_collide_with_one(tmp_path: Path) -> None:
    rows = read_lines(tmp_path, {"question": ""}, {"question_id": "line-1", "question": "Why?"})
    assert [row["question_id"] for row in rows] == ["line-1-2", "line-1"]


@pytest.mark.parametrize("id_type", [pa.string(), pa.int64()])
def test_parquet_is_known_by_its_content(tmp_path: Path, id_type: pa.DataType) -> None:
    table = pa.table({"question_id": pa.array([1, 2, 2]).cast(id_type), "question": ["One?", None, "Three?"]})
    pq.write_table(table.append_column("extra", pa.array([0, 0, 0])), tmp_path / "questions.data")
    rows = read_questions(job(tmp_path, tmp_path / "questions.data")).to_pylist()
    assert [row["question_id"] for row in rows] == ["1", "2", "row-3"]
    assert rows[0]["error"] is None
    assert rows[1]["error"] == "row 2: the question has no text"
    assert rows[2]["error"] == "row 3: question_id '2' is used on row 2"


def test_any_fsspec_uri_is_read(tmp_path: Path) -> None:
    with fsspec.open("memory://sets/questions.jsonl", "wb") as file:
        file.write('\ufeff{"question": "什么是记忆?"}\n'.encode())
    assert read_questions(job(tmp_path, "memory://sets/questions.jsonl"))["question"].to_pylist() == ["什么是记忆?"]


def test_a_query_on_the_warehouse_gives_questions(tmp_path: Path) -> None:
    database = str(tmp_path / "warehouse.duckdb")
    with duckdb.connect(database) as connection:
        connection.execute(
            "CREATE TABLE faq AS SELECT * FROM (VALUES (1, 'One?'), (2, NULL), (3, 'Three?')) t(id, text)"
        )
    spec = {"questions": {"sql": "SELECT id AS question_id, text AS question FROM faq ORDER BY id"}}
    rows = read_questions(JobSpec.model_validate({**spec, "warehouse": {"database": database}})).to_pylist()
    assert [(row["question_id"], row["question"]) for row in rows] == [("1", "One?"), ("2", ""), ("3", "Three?")]
    assert rows[1]["error"] == "row 2: the question has no text"
    spec = {"questions": {"sql": "SELECT text FROM faq"}}
    with pytest.raises(
        QuestionError, match="the query on the warehouse: has no column 'question'; columns found: text"
    ):
        read_questions(JobSpec.model_validate({**spec, "warehouse": {"database": database}}))


def test_a_set_of_many_batches_is_read_as_a_stream(tmp_path: Path) -> None:
    count = 2 * BATCH + 1
    path = tmp_path / "questions.jsonl"
    lines = ({"question_id": f"q{n}" if n else None, "question": f"Number {n}?"} for n in range(count))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    batches = list(questions.read_questions(job(tmp_path, path)))
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 1]
    assert len({name for batch in batches for name in batch["question_id"].to_pylist()}) == count


def test_a_line_as_long_as_a_book_is_one_error_row(tmp_path: Path) -> None:
    rows = read_lines(tmp_path, b'{"question": "' + b"x" * (3 << 20) + b'"}', {"question": "Why?"})
    assert [row["error"] for row in rows] == ["line 1 has more than 1,048,576 bytes, which is not a question", None]


def test_an_empty_set_is_no_question(tmp_path: Path) -> None:
    assert read_lines(tmp_path, b"\n") == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"question_id,prompt\n1,Why?\n", "no column 'question'; columns found: question_id, prompt; rename 'prompt'"),
        (b'{\n "question": "Why?"\n}\n', "no line is a JSON object; write each question as an object on its own line"),
        (b'[{"question": "Why?"},\n', "begins as a JSON array but is none"),
        (b'[{"query": "Why?"}]', "no row has the key 'question'; keys found: query; rename 'query'"),
        (b"Question\nWhy?\n", "no column 'question'; columns found: Question; rename 'Question'"),
        (pdf("words"), "is application/pdf; write JSON lines"),
        (gzip.compress(b'{"question": "Why?"}')[:-9], "is damaged gzip"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; write JSON lines"),
        (b"PAR1 and then nothing", "cannot be read"),
        (b'{"id": 1, "prompt": "Why?"}\n', "no line has the key 'question'; keys found: id, prompt"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "set.bin"
    path.write_bytes(content)
    with pytest.raises(QuestionError, match=problem) as refusal:
        read_questions(job(tmp_path, path))
    assert str(path) in str(refusal.value)


def test_a_parquet_file_without_the_column_is_refused_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["Why?"]}), tmp_path / "set.parquet")
    with pytest.raises(QuestionError, match="no column 'question'; columns found: prompt"):
        read_questions(job(tmp_path, tmp_path / "set.parquet"))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"question": [1]}, "column 'question' is of type int64; make it text"),
        ({"question_id": [0.5], "question": ["Why?"]}, "column 'question_id' is of type double; make it text or whole"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(tmp_path: Path, columns: Any, problem: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "set.parquet")
    with pytest.raises(QuestionError, match=problem):
        read_questions(job(tmp_path, tmp_path / "set.parquet"))


@pytest.mark.parametrize("uri", ["nowhere.jsonl", "memory://nowhere/at/all.jsonl", "nosuchprotocol://x/y.jsonl"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, uri: str) -> None:
    with pytest.raises(QuestionError, match=uri.rsplit("/", 1)[-1]):
        read_questions(job(tmp_path, uri))


def test_plain_texts_are_checked_in_the_same_way() -> None:
    rows = questions_of_texts(["Why?", "", "Why?"])
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert len({row["question_id"] for row in rows}) == 3


_TWO = [
    {"question_id": "a", "question": "What is a quay?", "error": None},
    {"question_id": "b", "question": "Who is Ann, then?", "error": None},
]
_LINES = '{"question_id": "a", "question": "What is a quay?"}\r\n{"question_id": "b", "question": "Who is Ann, then?"}'
_CSV = 'question_id,question,note\r\na,What is a quay?,x\r\nb,"Who is Ann, then?",\r\n'


@pytest.mark.parametrize(
    "content",
    [
        _LINES.encode("utf-8-sig"),
        _LINES.encode("utf-16"),
        gzip.compress(_LINES.encode()),
        bz2.compress(_CSV.encode()),
        ("[" + _LINES.replace("\r\n", ",\n") + "]").encode(),
        _LINES.replace("question_id", "id").encode(),
        _CSV.encode("utf-8-sig"),
        _CSV.encode("utf-16"),
        _CSV.replace("question_id", "id").encode(),
        _CSV.replace(",", "\t").replace("Ann\t", "Ann,").encode(),
        b"sep=;\r\nquestion;id\r\nWhat is a quay?;a\r\nWho is Ann, then?;b\r\n",
    ],
    ids=["bom", "utf-16", "gzip", "bzip2", "array", "id", "csv", "csv utf-16", "csv id", "tsv", "sep"],
)
def test_the_bytes_tell_the_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set").write_bytes(content)
    assert read_questions(job(tmp_path, tmp_path / "set")).to_pylist() == _TWO


def test_compressed_parquet_and_its_id(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "question": [row["question"] for row in _TWO]})
    pq.write_table(table, tmp_path / "set.parquet")
    (tmp_path / "set.parquet.gz").write_bytes(gzip.compress((tmp_path / "set.parquet").read_bytes()))
    for name in ("set.parquet", "set.parquet.gz"):
        assert read_questions(job(tmp_path, tmp_path / name)).to_pylist() == _TWO


def test_an_array_may_hold_texts(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text('["Why?", {"question": "How?"}, 7]')
    rows = read_questions(job(tmp_path, tmp_path / "set.json")).to_pylist()
    assert [row["question"] for row in rows] == ["Why?", "How?", ""]
    assert rows[2]["error"] == "row 3 is not a JSON object with a question"


def test_a_bad_row_of_a_table_is_an_error_row(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text('id,question\n1,Why?\n2,How, then?\n3,"Open\n4,Who?\n1,Again?\n')
    rows = read_questions(job(tmp_path, tmp_path / "set.csv")).to_pylist()
    assert [(row["question_id"], row["error"]) for row in rows] == [
        ("1", None),
        ("line-3", "line 3 has 3 cells for 2 names"),
        ("line-4", "line 4 has a quote that is not closed"),
        ("4", None),
        ("line-6", "line 6: question_id '1' is used on line 2"),
    ]


def test_a_key_that_is_there_twice_is_an_error_row(tmp_path: Path) -> None:
    twice = b'{"question": "One?", "question": "Two?"}'
    first, second = read_lines(tmp_path, twice, b'{"question": "Why?", "n": 1, "n": 2}')
    assert first["error"] == "line 1 has the key 'question' twice" and second["error"] is None


def _sheet(*rows: tuple[int, list[str]]) -> str:
    """Rows of a sheet by number; cells without text are left out, as programs do."""
    cell = '<c r="{column}{row}" t="inlineStr"><is><t>{text}</t></is></c>'
    return "".join(
        f'<row r="{row}">'
        + "".join(cell.format(column="ABCD"[at], row=row, text=text) for at, text in enumerate(texts) if text)
        + "</row>"
        for row, texts in rows
    )


def test_a_workbook_gives_the_rows_of_its_first_sheet(tmp_path: Path) -> None:
    names = ["question_id", "note", "question"]
    rows = _sheet((2, names), (3, ["a", "", "Why?"]), (5, ["", "x"]), (6, ["a", "", "How?"]))
    book = workbook({"Old:hidden": _sheet((1, ["question"])), "Empty": "", "Set": rows})
    (tmp_path / "set.xlsx").write_bytes(book)
    assert read_questions(job(tmp_path, tmp_path / "set.xlsx")).to_pylist() == [
        {"question_id": "a", "question": "Why?", "error": None},
        {"question_id": "row-5", "question": "", "error": "row 5: the question has no text"},
        {"question_id": "row-6", "question": "How?", "error": "row 6: question_id 'a' is used on row 3"},
    ]
    (tmp_path / "set.xlsx").write_bytes(workbook({"Set": _sheet((1, ["id", "Frage"]))}))
    with pytest.raises(QuestionError, match="no column 'question'; columns found: id, Frage"):
        read_questions(job(tmp_path, tmp_path / "set.xlsx"))
