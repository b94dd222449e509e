"""Mail of Outlook is read as other mail is."""

from __future__ import annotations

import struct

import pytest
from compressed_rtf import compress

from memorag_pipeline.corpus.parser import Parser
from tests.corpus.documents import compound
from tests.corpus.test_text import read, reason

HEADER = "From: Ann Archer <ann@example.invalid>\nTo: Bo\nSubject: Für Lund"
PAGE = "<p>10<sup>6</sup> <del>900</del>750 crowns für Köln</p>".encode()
RICH = rb"{\rtf1\ansi\ansicpg1252\fromtext The fee is {\strike 900}750 crowns.\par}"


def words(text: str) -> bytes:
    return text.encode("utf-16-le")


def message(subject: str = "Für Lund", **more: bytes) -> dict[str, bytes]:
    """The streams of a message; `more` ones by the number of their property."""
    texts = {"001A": "IPM.Note", "0037": subject, "0C1A": "Ann Archer", "0C1F": "ann@example.invalid", "0E04": "Bo"}
    streams = {"__properties_version1.0": bytes(32)}
    streams |= {f"__substg1.0_{tag}001F": words(text) for tag, text in texts.items()}
    return streams | {f"__substg1.0_{tag[1:]}": data for tag, data in more.items()}


@pytest.mark.parametrize(
    ("streams", "body"),
    [
        (message(t1000001F=words("The fee is 400 crowns.\r\n")), "The fee is 400 crowns."),
        (message(t10130102=PAGE), "10^6 ~~900~~ 750 crowns für Köln"),
        (message(t10130102=PAGE, t1000001F=words("another form")), "10^6 ~~900~~ 750 crowns für Köln"),
        (message(t10090102=compress(RICH), t1000001F=words("900750")), "The fee is ~~900~~ 750 crowns."),
        (message(t10090102=b"\1\2\3", t1000001F=words("The plain form.")), "The plain form."),
        (message(t1000001E="“Köln” €5".encode("cp1252")), "“Köln” €5"),
        (message(t1000001F=words("long " * 2000)), ("long " * 2000).strip("\n")),
    ],
)
def test_a_message_is_its_header_and_its_body(parser: Parser, streams: dict[str, bytes], body: str) -> None:
    document = read(parser, "a.msg", compound(streams))
    assert (document.media_type, document.title) == ("application/vnd.ms-outlook", "Für Lund")
    assert document.text == f"{HEADER}\n\n{body}"


def test_attachments_are_named_and_attached_messages_read(parser: Parser) -> None:
    sent = struct.pack("<IIQ", 0x00390040, 6, 133_000_000_000_000_000)
    streams = message(t1000001F=words("See below."))
    streams["__properties_version1.0"] += sent
    streams["__attach_version1.0_#00000000/__substg1.0_37010102"] = b"%PDF-" * 2000
    streams["__attach_version1.0_#00000000/__substg1.0_3707001F"] = words("offer.pdf")
    streams["__attach_version1.0_#00000000/__substg1.0_370E001F"] = words("application/pdf")
    inner = message("Older", t1000001F=words("Older words."))
    streams |= {f"__attach_version1.0_#00000001/__substg1.0_3701000D/{name}": data for name, data in inner.items()}
    text = read(parser, "a.msg", compound(streams)).text
    assert "Date: 2022-06-18 04:26 UTC" in text
    assert "[attachment: offer.pdf, application/pdf, 10,000 bytes, not read]" in text
    assert text.endswith("[forwarded message]\n\n" + HEADER.replace("Für Lund", "Older") + "\n\nOlder words.")


def test_a_message_without_words_is_refused_as_what_it_is(parser: Parser) -> None:
    empty = compound({"__properties_version1.0": bytes(32), "__substg1.0_1000001F": b""})
    assert reason(parser, "a.msg", empty) == "not_text"
    assert reason(parser, "a.msg", compound(message())[:1600]) == "unreadable"
