"""Mail, mailboxes and saved pages: decoded words, one of alternatives, attachments named, no base64."""

from __future__ import annotations

import base64
from email.message import EmailMessage

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from tests.corpus.test_text import read, reason

HEADER = b"From: Ann <ann@example.invalid>\r\nTo: Bo <bo@example.invalid>\r\nSubject: =?utf-8?Q?F=C3=BCr?= Lund\r\n"
HEADER += b"Date: Tue, 1 Dec 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\n"
SHOWN = "From: Ann <ann@example.invalid>\nTo: Bo <bo@example.invalid>\nDate: Tue, 01 Dec 2026 10:00:00 +0100\n"
SHOWN += "Subject: Für Lund"


def message(**fields: str) -> EmailMessage:
    mail = EmailMessage()
    for name, value in {"From": "Ann <ann@example.invalid>", "Subject": "Ropes", **fields}.items():
        mail[name] = value
    return mail


@pytest.mark.parametrize(
    ("field", "body", "expected"),
    [
        (
            b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable",
            b"400 Kro=\r\nnen =E2=82=AC",
            "400 Kronen €",
        ),
        (b"text/plain; charset=iso-8859-1", b"\x93quoted\x94 \x805", "\u201cquoted\u201d €5"),
        (b"text/plain; charset=iso-8859-1", "Köln \u201cx\u201d".encode(), "Köln \u201cx\u201d"),
        (b"text/plain; charset=koi8-r", "Причал".encode("koi8-r"), "Причал"),
        (b"text/plain; charset=iso-2022-jp", "港の規則".encode("iso-2022-jp"), "港の規則"),
        (b"text/plain", "Grüße aus Köln, liebe Grüße".encode("cp1252"), "Grüße aus Köln, liebe Grüße"),
        (
            b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64",
            base64.encodebytes("fünf Seile\n".encode()),
            "fünf Seile",
        ),
        (b"text/html; charset=utf-8", b"<p>10<sup>6</sup> <del>900</del>750</p>", "10^6 ~~900~~ 750"),
        (b"text/html", b'<meta charset="iso-8859-1"><p>\x805</p>', "€5"),
    ],
)
def test_a_mail_is_its_header_and_the_words_of_its_body(
    parser: Parser, field: bytes, body: bytes, expected: str
) -> None:
    data = HEADER + b"Content-Type: " + field + b"\r\n\r\n" + body
    for name in ("a.eml", "1700000000.M1P2.host:2,S"):
        document = read(parser, name, data)
        assert (document.media_type, document.title) == ("message/rfc822", "Für Lund")
        assert document.text == f"{SHOWN}\n\n{expected}"


def test_one_of_alternatives_is_read(parser: Parser) -> None:
    mail = message()
    mail.set_content("The fee is 400 crowns.\n")
    mail.add_alternative("<p>The fee is <b>400</b> crowns.</p>", subtype="html")
    assert read(parser, "a.eml", mail.as_bytes()).text.count("The fee is 400 crowns.") == 1
    empty = message()
    empty.set_content("The fee is 400 crowns.\n")
    empty.add_alternative("<style>p{}</style>", subtype="html")
    assert read(parser, "a.eml", empty.as_bytes()).text.count("The fee is 400 crowns.") == 1


def test_attachments_are_read_if_they_are_text_and_named_if_not(parser: Parser) -> None:
    mail = message()
    mail.set_content("See below.\n")
    mail.add_attachment(bytes(range(256)) * 100, maintype="application", subtype="pdf", filename="über.pdf")
    mail.add_attachment("Port,Fee\nLund,120\n", subtype="csv", filename="fees.csv")
    forwarded = message(Subject="Older")
    forwarded.set_content("Older words.\n")
    mail.add_attachment(forwarded)
    text = read(parser, "a.eml", mail.as_bytes()).text
    assert "[attachment: über.pdf, application/pdf, 25,600 bytes, not read]" in text
    assert "[attachment: fees.csv, text/csv, 18 bytes]\n\nPort,Fee\nLund,120" in text
    assert "[forwarded message]\n\nFrom: Ann <ann@example.invalid>\nSubject: Older\n\nOlder words." in text
    assert "AAECAwQF" not in text


def test_a_picture_that_the_body_shows_is_no_attachment(parser: Parser) -> None:
    mail = message()
    mail.set_content('<p>Map: <img src="cid:m" alt="the quay"></p>', subtype="html")
    mail.add_related(b"\x89PNG" * 500, maintype="image", subtype="png", cid="<m>")
    assert read(parser, "a.eml", mail.as_bytes()).text.endswith("Map: [image: the quay]")


def test_an_encrypted_mail_is_refused_and_one_without_end_too(parser: Parser) -> None:
    data = HEADER + b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nMIAGC"
    assert reason(parser, "a.eml", data) == "password"
    mail = message()
    mail.set_content("x")
    for _ in range(20):
        outer = message()
        outer.add_attachment(mail)
        mail = outer
    assert reason(parser, "a.eml", mail.as_bytes()) == "bomb"


@pytest.mark.parametrize(
    "header",
    [
        b"From: a@b\r\nSubject: =?x-unknown?Q?=FC?= =?utf-8?B?!!?=\r\n",
        "From: a@b\r\nSubject: Für rohe Köpfe\r\n".encode(),
        b"From: \xff\xfe\r\nTo: ,,;\r\nDate: not a day\r\nSubject: ok\r\n",
        b"From: a@b\r\nContent-Type: multipart/mixed\r\nSubject: no boundary\r\n",
        b'From: a@b\r\nContent-Type: text/plain; charset="no such"\r\nSubject: x\r\n',
        b"From: a@b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\nSubject: x\r\n",
    ],
)
def test_a_broken_header_costs_no_words(parser: Parser, header: bytes) -> None:
    document = read(parser, "a.eml", header + b"\r\nwords of the body, not in code\r\n")
    assert "words of the body" in document.text or b"base64" in header
    if "Für".encode() in header:
        assert document.title == "Für rohe Köpfe"


def test_a_mailbox_holds_its_messages(parser: Parser) -> None:
    mails = [
        b"From ann@example.invalid Tue Dec  1 10:00:00 2026\n" + HEADER + b"\n" + body
        for body in (b"one\n>From x\n\n", b"two\n")
    ]
    document = read(parser, "old.mbox", b"".join(mails))
    assert document.media_type == "application/mbox" and document.title == "old"
    assert document.text.count("Subject: Für Lund") == 2 and "\nFrom x" in document.text


def saved(root: str, *more: str, head: str = "From: <Saved by Blink>") -> bytes:
    parts = [f"--B\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}\r\n" for page in (root, *more)]
    parts.append(
        "--B\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + "AAECAwQF" * 100 + "\r\n"
    )
    header = f'{head}\r\nSubject: Ropes\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="B"\r\n\r\n'
    return (header + "".join(parts) + "--B--\r\n").encode()


@pytest.mark.parametrize("name", ["page.mht", "page.mhtml", "page"])
def test_a_saved_page_is_a_page(parser: Parser, name: str) -> None:
    data = saved("<title>Of ropes</title><h1>Ropes</h1><p>fünf</p>", "<p>an advertisement in a frame</p>")
    document = read(parser, name, data)
    assert (document.text, document.title, document.is_markdown) == ("# Ropes\n\nfünf", "Of ropes", True)
    assert read(parser, name, saved("<p>words</p>")).title == "Ropes"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "From: the harbour master\n\nAll boats leave at noon."),
        (
            "a.patch",
            "From 4d7a214614ab2935c943f9e0ff69d22eadbb8f32 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\n\ndiff --git",
        ),
        ("b.patch", "From: A <a@b>\nMessage-ID: <1@b>\nSubject: [PATCH] x\n\ndiff --git a/x b/x\n+ y"),
        ("a.md", "# Mail\n\nFrom: x\nMIME-Version: 1.0\n"),
        ("a.eml", "no header at all, just words\n\nand more"),
    ],
)
def test_text_that_is_like_mail_stays_text(parser: Parser, name: str, text: str) -> None:
    document = read(parser, name, text.encode())
    assert document.text == text and document.media_type in {"text/plain", "text/markdown"}


def test_records_are_not_looked_for_in_mail(parser: Parser) -> None:
    from memorag_pipeline.corpus.text import read_plain

    with pytest.raises(Refused, match="holds no records"):
        read_plain("a.eml", HEADER + b"\r\nwords", "en", 1 << 20)
