"""The reading process: whatever a document's bytes do, it costs that document."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from memorag_pipeline.corpus.document_reader import ReadDocument, Reader, ReadingSpec
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.reader_process import ReaderProcess
from memorag_pipeline.corpus.text import DocumentText
from memorag_pipeline.memory.stream import render_section
from memorag_pipeline.specs.source import RecordsSpec
from tests.corpus.documents import docx, pdf

PROGRAM = "memorag_pipeline.refresh.reading_process"
SOUND = b"Some words of a sound document."
Start = Callable[..., ReaderProcess]


@pytest.fixture
def start(reading: ReadingSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a reading process; keyword arguments are laid over its spec."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    started: list[ReaderProcess] = []

    def started_one(seconds: float = 60, module: str = PROGRAM, **values: Any) -> ReaderProcess:
        started.append(ReaderProcess(reading.model_copy(update=values), seconds, module))
        return started[-1]

    yield started_one
    for process in started:
        process.close()


@pytest.fixture(scope="module")
def process(reading: ReadingSpec) -> Iterator[ReaderProcess]:
    """A process that several tests share."""
    with ReaderProcess(reading, 60, PROGRAM) as shared:
        yield shared


@pytest.fixture
def faulty(start: Start, request: pytest.FixtureRequest) -> ReaderProcess:
    """A process of faults, which is given up soon only where it is to hang: a loaded machine is slow, too."""
    hangs = "HANG" in request.node.name
    process = start(
        2 if hangs else 60, "tests.corpus.faulty_reading_process", records=RecordsSpec(include=["**"], text=["body"])
    )
    assert text_of(read(process, "first.txt", SOUND)) == SOUND.decode()
    return process


def read(process: ReaderProcess, name: str, data: bytes) -> ReadDocument:
    return process.document("d", f"file:///kb/{name}", data)


def text_of(found: ReadDocument) -> str:
    assert isinstance(found.document, DocumentText), found.document
    return found.document.text


def refusal_of(found: ReadDocument) -> Refused:
    assert isinstance(found.document, Refused)
    assert found.chunks == [] and found.sections == []
    return found.document


def lines(*bodies: str) -> bytes:
    return "\n".join(json.dumps({"body": body}) for body in bodies).encode()


def records(process: ReaderProcess, *bodies: str) -> dict[str, str]:
    """The text of each record, or the reason why there is none."""
    found = process.records("d", "file:///kb/pages.jsonl", lines(*bodies))
    return {
        each.uri.rsplit("/", 1)[-1]: each.document.text
        if isinstance(each.document, DocumentText)
        else each.document.reason
        for each in found
    }


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("strings.rst", topics["strings"].encode()),
        ("page.html", b"<h1>Heading</h1><p>Some <b>text</b>.</p>"),
        ("page.md", "# 标题\n\n文字 🙂\u2028\n\n## Below\n\nwords\n".encode()),
        ("letter.docx", docx(("The heading", "Heading1"), ("A paragraph.", "Normal"))),
        ("half.json", rb'{"a": "\u00e9"}'),
        ("cut.pdf", pdf("words")[:200]),
    ],
)
def test_it_finds_what_a_reader_here_finds(
    process: ReaderProcess, reading: ReadingSpec, name: str, data: bytes
) -> None:
    here = Reader(reading, render_section).document("d", f"file:///kb/{name}", data)
    there = read(process, name, data)
    if isinstance(here.document, Refused):
        assert str(refusal_of(there)) == str(here.document)
    else:
        assert there == here and there.chunks and there.sections


def test_records_are_what_a_reader_here_finds(process: ReaderProcess, reading: ReadingSpec) -> None:
    data = lines("one", "half a \ud800 surrogate", "three") + b"\n{broken"
    here = list(Reader(reading, render_section).records("d", "file:///kb/pages.jsonl", data))
    there = list(process.records("d", "file:///kb/pages.jsonl", data))
    assert there[:3] == here[:3] and len(there) == len(here) == 4
    assert (refusal_of(there[3]).reason, there[3].uri) == ("bad_record", "file:///kb/pages.jsonl#3")


def test_one_process_serves_many_documents_and_ends_when_it_is_closed(start: Start) -> None:
    with start() as process:
        read(process, "a.txt", SOUND)
        first = process.process_id
        assert text_of(read(process, "b.pdf", pdf("Hello PDF"))).strip() == "Hello PDF"
        assert process.process_id == first is not None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_splitter_that_hangs_is_killed_and_the_place_named(start: Start) -> None:
    """Quotes within quotes: seconds for each stretch of text on any CPU, and minutes for joining the pieces."""
    process = start(1)
    refused = refusal_of(read(process, "quotes.md", b"Words.\n\n" + b">" * 2_000_000))
    assert refused.reason == "timeout"
    assert "cutting it into chunks took longer than" in refused.detail
    assert re.search(r"\(source.timeout_seconds\) behind character [\d,]+ of 2,000,008", refused.detail)
    assert process.process_id is None


@pytest.mark.parametrize(
    ("word", "reason", "detail"),
    [
        ("HANG", "timeout", "longer than 2 s"),
        ("DIE", "crashed", "SIGSEGV"),
        ("LEAVE", "crashed", "exit code 3"),
        ("DEEP", "bomb", "nests"),
        ("MEMORY", "too_large", "memory"),
        ("FAIL", "crashed", "TypeError: a bug"),
    ],
)
def test_a_fault_costs_one_document_or_record(faulty: ReaderProcess, word: str, reason: str, detail: str) -> None:
    refused = refusal_of(read(faulty, "bad.txt", f"words, {word}".encode()))
    assert refused.reason == reason and detail in refused.detail
    assert text_of(read(faulty, "next.txt", SOUND)) == SOUND.decode()
    assert records(faulty, "one", f"{word} two", "three") == {
        "pages.jsonl#0": "one",
        "pages.jsonl#1": reason,
        "pages.jsonl#2": "three",
    }


def test_a_file_of_records_ends_where_its_time_is_over(start: Start) -> None:
    """Four times the limit together: the process hangs in the first ones, and the rest is left out."""
    faulty = start(0.5, "tests.corpus.faulty_reading_process", records=RecordsSpec(include=["**"], text=["body"]))
    found = list(faulty.records("d", "file:///kb/pages.jsonl", lines(*["HANG"] * 50)))
    assert 1 < len(found) < 10
    assert {refusal_of(each).reason for each in found} == {"timeout"}
    assert found[-1].uri == "file:///kb/pages.jsonl" and "those after it are left out" in refusal_of(found[-1]).detail


def test_records_that_are_not_all_taken_leave_the_process_usable(faulty: ReaderProcess) -> None:
    found = faulty.records("d", "file:///kb/pages.jsonl", lines("one", "two", "three"))
    assert text_of(next(found)) == "one"
    found.close()  # type: ignore[attr-defined]
    assert text_of(read(faulty, "next.txt", SOUND)) == SOUND.decode()


@pytest.mark.parametrize("depth", [450, 100_000])
def test_a_record_that_nests_too_deep_costs_itself(process: ReaderProcess, depth: int) -> None:
    deep = '{"a":' * depth + '"x"' + "}" * depth
    data = b"\n".join([lines("one"), b'{"body": ' + deep.encode() + b"}", lines("three")])
    found = list(process.records("d", "file:///kb/pages.jsonl", data))
    assert [each.uri.rsplit("#", 1)[-1] for each in found] == ["0", "1", "2"]
    assert refusal_of(found[1]).reason == "bad_record"
    assert text_of(found[0]) == "body: one" and text_of(found[2]) == "body: three"


def test_a_package_that_holds_too_much_text_is_refused(start: Start) -> None:
    data = docx(*[("many words of the same text " * 8, "Normal")] * 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert len(packed.getvalue()) < 20_000
    refused = refusal_of(read(start(max_characters=100_000), "large.docx", packed.getvalue()))
    assert refused.reason == "too_large"
    assert "holds 22" in refused.detail and "source.max_extracted_characters admits 100,000" in refused.detail


def test_a_table_that_repeats_its_names_without_end_is_cut_off(start: Start) -> None:
    table = f"{'name ' * 200}\n" + "1\n" * 300
    found = list(start(max_characters=20_000).records("d", "file:///kb/table.csv", table.encode()))
    assert 10 < len(found) < 30
    assert (found[-1].uri, refusal_of(found[-1]).reason) == ("file:///kb/table.csv", "too_large")
    assert "those after it are left out" in refusal_of(found[-1]).detail


def test_a_process_that_died_between_documents_is_replaced(start: Start) -> None:
    process = start()
    read(process, "a.txt", SOUND)
    first = process.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert text_of(read(process, "b.txt", SOUND)) == SOUND.decode()
    assert process.process_id != first


def test_markup_that_nests_without_end_costs_one_document(process: ReaderProcess) -> None:
    found = read(process, "page.html", b"<div>" * 200_000 + b"words")
    assert isinstance(found.document, DocumentText) or found.document.reason in {"crashed", "timeout", "bomb", "empty"}
    assert text_of(read(process, "b.txt", SOUND)) == SOUND.decode()


def test_a_program_that_does_not_start_is_an_error_and_no_quarantine(start: Start) -> None:
    with pytest.raises(RuntimeError, match=r"does not start \(exit code 1\)"):
        read(start(module="memorag_pipeline.no_such_program"), "a.txt", SOUND)


def test_the_process_imports_no_models_and_nothing_of_the_store() -> None:
    code = (
        "import sys, memorag_pipeline.refresh.reading_process;"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'numpy', 'fsspec', 'duckdb') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_it_works_in_a_daemonic_process(reading: ReadingSpec) -> None:
    """As in a worker of Celery, which may not start children with multiprocessing."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_read_into, args=(there, reading), daemon=True)
    process.start()
    assert here.poll(60)
    assert here.recv() == "A word document"
    process.join()


def _read_into(connection: Connection, reading: ReadingSpec) -> None:
    with ReaderProcess(reading, 60, PROGRAM) as process:
        connection.send(text_of(read(process, "letter.docx", docx(("A word document", "Normal")))))
