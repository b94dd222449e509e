"""Base64 is never part of a text; what is only like it stays."""

from __future__ import annotations

import base64
import json
import random
import time

import pytest

from memorag_pipeline.corpus.embedded_data import without_data
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.records import read_records
from memorag_pipeline.corpus.text import DocumentText, read_plain
from memorag_pipeline.specs.source import RecordsSpec
from tests.corpus.documents import docx
from tests.corpus.test_text import read

BYTES = random.Random(1).randbytes(3000)
DATA = base64.b64encode(BYTES).decode()
SMALL = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def lines(data: str, between: str = "\n", width: int = 76) -> str:
    return between.join(data[start : start + width] for start in range(0, len(data), width))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"![plan](data:image/png;base64,{DATA}) after", "![plan]([base64 data, 4,022 characters]) after"),
        (f"[1]: <data:image/png;base64,{DATA}>\nafter", "[1]: <[base64 data, 4,022 characters]>\nafter"),
        (f"a{{background:url(data:image/gif;base64,{SMALL})}}", "a{background:url([base64 data, 78 characters])}"),
        (f'{{"image/png": "{DATA}", "a": 1}}', '{"image/png": "[base64 data, 4,000 characters]", "a": 1}'),
        ('{"a": "' + lines(DATA, "\\n") + '"}', '{"a": "[base64 data, 4,104 characters]"}'),
        ('"' + DATA.replace("/", "\\/") + '"', None),
        (f"Content-Transfer-Encoding: base64\n\n{lines(DATA)}\n--XX\nend", None),
        ("-----BEGIN CERTIFICATE-----\n" + lines(DATA[:1000], width=64) + "\n-----END CERTIFICATE-----", None),
        ("> " + lines(DATA, "\n> ") + "\n> words", None),
        ('x = ("' + lines(DATA, '"\n     "') + '")', None),
        ("PHOTO;ENCODING=b:" + lines(DATA, "\n ") + "\nEND:VCARD", None),
        ("ssh-rsa " + DATA[:372] + " me@host", "ssh-rsa [base64 data, 372 characters] me@host"),
        ("d = " + "A" * 3000 + DATA[:40], "d = [base64 data, 3,040 characters]"),
        (
            "url(\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'" + "%3Cpath/%3E" * 20 + '")',
            'url("[data, 280 characters]")',
        ),
        ("before\n" + lines(DATA[:204]) + "\nThe next line of words.", None),
    ],
)
def test_data_is_a_short_mark(text: str, expected: str | None) -> None:
    found = without_data(text)
    assert expected in {None, found}
    assert "data, " in found and len(found) < 150
    for end in ("after", "end", "END:VCARD", "> words", "The next line of words.", "-----END CERTIFICATE-----"):
        assert (end in found) == (end in text)


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "ab12" * 16 + " " + "0f" * 64,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "/usr/lib/" + "someDirectoryName/AnotherOne2/" * 12,
        "ThisIsAVeryLongIdentifierWithManyWordsInIt2" * 8,
        "ACGTTGCA" * 80,
        "\n".join(f"{random.Random(number).getrandbits(256):064x}" for number in range(30)),
        f'"integrity": "sha512-{DATA[:86]}==",\n' * 5,
        "|" + "-" * 300 + "|" + "_" * 300,
        'The key data: is text, as in data:text/plain,hello and "data:abc, and a long sentence after it"'
        + " word" * 50,
        "漢字かな" * 100,
    ],
)
def test_what_is_no_data_stays(text: str) -> None:
    assert without_data(text) == text


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.html", "a.json", "a.rst", "a.xml", "a.css"])
def test_no_format_of_text_keeps_data(parser: Parser, name: str) -> None:
    uri = f"data:image/png;base64,{DATA}"
    bodies = {"a.json": json.dumps({"a": "words", "image": DATA}), "a.xml": f"<a><b>words</b><c>{DATA}</c></a>"}
    bodies["a.html"] = f"<p>words <img src='{uri}' alt='A map'><code>{uri}</code></p>"
    text = read(parser, name, bodies.get(name, f"words ![x]({uri})\n\n# Head\n").encode()).text
    assert "words" in text and DATA[:20] not in text and "base64 data, " in text


def test_headings_stand_behind_data_where_they_say(parser: Parser) -> None:
    document = read(parser, "a.md", f"# One\n\n![x](data:image/png;base64,{DATA})\n\n# Two\n".encode())
    assert [document.text[heading.start :][:5] for heading in document.headings] == ["# One", "# Two"]
    packed = read(parser, "a.docx", docx(("One", "Heading1"), (DATA, "Normal"), ("Two", "Heading1")))
    assert DATA[:20] not in packed.text
    assert [packed.text[heading.start :][:3] for heading in packed.headings] == ["One", "Two"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.xml"])
def test_records_keep_no_data(parser: Parser, name: str) -> None:
    row = {"name": "the quay", "image": f"data:image/png;base64,{DATA}"}
    files = {
        "a.csv": f"name,image\nthe quay,{DATA}\n",
        "a.jsonl": f"{json.dumps(row)}\n{json.dumps(row)}\n",
        "a.json": json.dumps([row]),
        "a.xml": f"<all><row><name>the quay</name><image>{DATA}</image></row></all>",
    }
    plain = read_plain(name, files[name].encode(), "en", 1 << 20)
    for _, document in read_records(plain, RecordsSpec(include=["*"]), parser):
        assert isinstance(document, DocumentText)
        assert document.text.startswith("name: the quay\nimage: [base64 data, ") and len(document.text) < 70


@pytest.mark.parametrize("text", ["a" * 10**6, "A1b" * 300_000, "data:" * 200_000, "data:a/b;c=d" * 90_000])
def test_time_is_linear(text: str) -> None:
    started = time.process_time()
    without_data(text)
    assert time.process_time() - started < 4
