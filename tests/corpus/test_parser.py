"""The parser process: crashes, hangs and bombs cost one document."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from memorag_pipeline.corpus.formats import DOCX
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from tests.corpus.documents import docx, pdf

SLOW = b"<p>" + b"<b>many</b> <i>words</i> in a line of text " * 400_000  # 17 MB take seconds
HTML = b"<h1>Heading</h1><p>Some <b>text</b>.</p>"


def test_one_process_serves_many_documents(parser: Parser) -> None:
    assert parser.parse(HTML, "text/html").text == "# Heading\n\nSome text.\n"
    process = parser.process_id
    assert parser.parse(pdf("Hello PDF"), "application/pdf").text.strip() == "Hello PDF"
    assert parser.process_id == process


def test_a_slow_document_is_stopped_and_the_next_one_parsed() -> None:
    with Parser(0.3) as parser:
        started = time.monotonic()
        with pytest.raises(Refused) as refused:
            parser.parse(SLOW, "text/html")
        assert time.monotonic() - started < 30
        assert refused.value.reason == "timeout" and "0.3 s" in refused.value.detail
    with Parser(60) as parser:
        assert "text" in parser.parse(HTML, "text/html").text


def test_a_crash_costs_one_document(parser: Parser) -> None:
    parser.parse(HTML, "text/html")
    process = parser.process_id
    assert process is not None
    killer = threading.Timer(0.2, os.kill, (process, signal.SIGSEGV))
    killer.start()
    with pytest.raises(Refused) as refused:
        parser.parse(SLOW, "text/html")
    killer.join()
    assert refused.value.reason == "crashed" and "SIGSEGV" in refused.value.detail
    assert "text" in parser.parse(HTML, "text/html").text


def test_a_process_that_died_between_documents_is_replaced(parser: Parser) -> None:
    parser.parse(HTML, "text/html")
    process = parser.process_id
    assert process is not None
    os.kill(process, signal.SIGKILL)
    time.sleep(0.1)
    assert "text" in parser.parse(HTML, "text/html").text
    assert parser.process_id != process


@pytest.mark.parametrize(
    ("data", "media_type", "reason"),
    [
        (pdf("text")[:200], "application/pdf", "unreadable"),
        (pdf("text", encrypted=True), "application/pdf", "password"),
        (b"<a><b></a>", "application/xml", "unreadable"),
        (b"<a>" * 50_000 + b"</a>" * 50_000, "application/xml", "bomb"),
        (
            b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaa">'
            + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 64) for i in range(8))
            + b"]><a>&i;</a>",
            "application/xml",
            "bomb",
        ),
    ],
    ids=["cut pdf", "encrypted pdf", "xml", "nested xml", "entity bomb"],
)
def test_bad_documents_are_refused_with_the_reason(parser: Parser, data: bytes, media_type: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parser.parse(data, media_type)
    assert refused.value.reason == reason
    assert refused.value.detail and "\n" not in refused.value.detail


def test_entities_of_other_files_are_not_read_and_cost_nothing_else(parser: Parser, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    page = f"""<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret"><!ENTITY name "inner">]>
        <a><p>The &name; entity.</p><p>An &x;outer one.</p></a>"""
    assert parser.parse(page.encode(), "application/xml").text == "The inner entity.\n\nAn outer one."
    page = '<!DOCTYPE a PUBLIC "-//A//B" "https://example.invalid/a.dtd"><a>A caf&eacute; and &unknown;more.</a>'
    assert parser.parse(page.encode(), "application/xml").text == "A café and more."


def test_markup_that_nests_without_end_costs_one_document(parser: Parser) -> None:
    try:
        parser.parse(b"<div>" * 200_000 + b"words", "text/html")
    except Refused as refused:
        assert refused.reason in {"crashed", "timeout", "bomb", "unreadable", "too_large"}
    assert parser.parse(HTML, "text/html").text.strip()


def test_words_around_a_text_box_and_in_it_are_kept(parser: Parser) -> None:
    words = "<w:txbxContent><w:p><w:r><w:t>In the box.</w:t></w:r></w:p></w:txbxContent>"
    box = f'<w:pict xmlns:v="urn:schemas-microsoft-com:vml"><v:shape><v:textbox>{words}</v:textbox></v:shape></w:pict>'
    data = docx(
        ("Top", "Heading1"), (f"Before</w:t></w:r><w:r>{box}</w:r><w:r><w:t>after.", "Normal"), ("Last.", "Normal")
    )
    found = parser.parse(data, DOCX)
    assert " ".join(found.text.split()) == "Top Beforeafter. In the box. Last."


def test_a_pdf_of_too_many_pages_is_refused() -> None:
    with Parser(60, max_pages=1) as parser:
        assert parser.parse(pdf("words"), "application/pdf").text.strip() == "words"
        with pytest.raises(Refused) as refused:
            parser.parse(pdf("words", pages=2), "application/pdf")
        assert refused.value.reason == "too_many_pages" and "2 pages" in refused.value.detail


def test_closing_ends_the_process() -> None:
    with Parser(60) as parser:
        parser.parse(HTML, "text/html")
        process = parser.process_id
    assert process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_process_imports_neither_this_package_nor_models() -> None:
    code = (
        "import runpy, sys; from memorag_pipeline.corpus.parser import _WORKER; before = set(sys.modules);"
        "runpy.run_path(str(_WORKER)); new = set(sys.modules) - before;"
        "print([m for m in new if m.split('.')[0] in ('memorag_pipeline', 'torch', 'pyarrow', 'numpy', 'fsspec')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_it_works_in_a_daemonic_process() -> None:
    """As in a worker of Celery, which may not start children with multiprocessing."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_parse_into, args=(there,), daemon=True)
    process.start()
    assert here.poll(60)
    assert here.recv() == "A word document"
    process.join()


def _parse_into(connection: Connection) -> None:
    media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    with Parser(60) as parser:
        connection.send(parser.parse(docx(("A word document", "Normal")), media_type).text)
