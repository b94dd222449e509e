"""Bytes to text: encodings are recognised, binary data is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.quarantine import Refused

LANGUAGES: dict[str, str] = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))
ENGLISH = "The café’s naïve résumé – “quoted” – costs 5 euros. Nobody else in Zürich would read it twice. " * 3  # noqa: RUF001
CHINESE = "人民共和国的各族人民共同创造了光辉灿烂的文化，具有光荣的革命传统。中国人民为国家独立进行了英勇奋斗。" * 3  # noqa: RUF001
TAIWAN = "馬祖列島是隸屬中華民國的群島，位於臺灣海峽正北方，面臨閩江口、連江口和羅源灣，與中國大陸相望。" * 3  # noqa: RUF001


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=200))
def test_utf8_is_kept_exactly(text: str) -> None:
    assert decode(text.encode()) == text.lstrip("\ufeff")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_goes(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding)) == CHINESE


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_recognised(encoding: str) -> None:
    assert decode(ENGLISH.encode(encoding)) == ENGLISH


@pytest.mark.parametrize(
    ("text", "encoding", "language"),
    [(ENGLISH, "cp1252", "en"), (CHINESE, "gb18030", "zh"), (CHINESE, "gb2312", "en"), (TAIWAN, "big5", "zh")],
)
def test_older_encodings_are_detected(text: str, encoding: str, language: str) -> None:
    assert decode(text.encode(encoding), language) == text


@pytest.mark.parametrize(
    ("language", "encodings"),
    [
        ("German", "cp1252 latin-1 iso8859-15 cp850 mac_roman"),
        ("Polish", "cp1250 iso8859-2 cp852"),
        ("Russian", "cp1251 koi8-r cp866 iso8859-5"),
        ("Ukrainian", "cp1251 koi8-u"),
        ("Greek", "cp1253 iso8859-7"),
        ("Turkish", "cp1254 iso8859-9"),
        ("Japanese", "cp932 euc-jp iso2022-jp"),
        ("Korean", "cp949 euc-kr iso2022-kr"),
    ],
)
def test_encodings_of_many_languages_are_detected(language: str, encodings: str) -> None:
    text = LANGUAGES[language] * 3
    for encoding in [*encodings.split(), "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]:
        assert decode(text.encode(encoding)) == text, encoding


def test_english_with_signs_alone_beyond_ascii_is_what_windows_writes() -> None:
    text = "Don’t “quote” it – it costs £4, or 5 € at 20 °C. See § 4 and ¶ 5 … • item ½ "  # noqa: RUF001
    assert decode(text.encode("cp1252")) == text
    assert decode((text * 20).encode("cp1252")) == text * 20


def test_wide_text_that_was_cut_or_has_a_broken_character_is_read() -> None:
    wide = (ENGLISH * 2).encode("utf-16")
    assert decode(wide[:-1]).startswith(ENGLISH)
    assert decode(wide[:100] + b"\x00\xd8" + wide[102:]).count("\ufffd") == 1


def test_a_declared_encoding_is_used_unless_the_bytes_are_utf8() -> None:
    assert decode("Größe".encode("cp850"), declared="cp850") == "Größe"
    assert decode("Größe".encode(), declared="cp850") == "Größe"
    assert decode("Größe".encode("cp1252"), declared="no-such-encoding") == "Größe"


def test_damaged_utf8_is_not_taken_for_another_encoding() -> None:
    assert decode(CHINESE.encode()[:-1] + b"\n") == CHINESE[:-1] + "\ufffd\n"


def test_newlines_become_one_kind() -> None:
    assert decode(b"a\r\nb\rc\n\n\td  ") == "a\nb\nc\n\n\td  "


def test_padding_and_stray_nuls_go() -> None:
    line = b"a line of text as it stands in many files\n" * 20
    assert decode(line + b"\0\0\0") == line.decode()
    assert decode(b"\0".join([line, line])) == (line + line).decode()


@pytest.mark.parametrize(
    "data",
    [
        random.Random(1).randbytes(20_000),
        random.Random(2).randbytes(300),
        b"\x7fELF\x02\x01\x01" + b"\0" * 500 + b"GNU" * 50,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + random.Random(3).randbytes(100),
        b"\0" * 1000,
        b"text, " * 20 + b"\0\x01\x02\x03" * 40,
        "Gr\0öße ".encode("cp1252") * 300,
    ],
    ids=["random", "short random", "program", "picture", "zeros", "record", "nul in latin"],
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        decode(data)
    assert refused.value.reason == "not_text"


@given(st.binary(max_size=400))
def test_any_bytes_give_clean_text_or_a_refusal(data: bytes) -> None:
    try:
        text = decode(data)
    except Refused as refused:
        assert refused.reason == "not_text"
    else:
        assert "\0" not in text and "\r" not in text
        text.encode("utf-8")


@pytest.mark.parametrize("label", ["iso-8859-1", "ISO8859-1", "latin1", "l1", "us-ascii", "windows-1252", "x-cp1252"])
def test_a_declared_latin1_is_what_windows_wrote(label: str) -> None:
    assert decode(b"\x93quoted\x94 \x96 \x805", declared=label) == "\u201cquoted\u201d \u2013 €5"
    assert decode(b"a\x81b\xe9", declared=label) == "a\x81bé"  # not in Windows-1252 at all
    assert decode("Köln \u201cquoted\u201d".encode(), declared=label) == "Köln \u201cquoted\u201d"


@pytest.mark.parametrize(
    ("label", "written"),
    [("iso-8859-9", "cp1254"), ("shift_jis", "cp932"), ("x-sjis", "cp932"), ("gb2312", "gb18030"), ("euc-kr", "cp949")],
)
def test_a_declared_encoding_is_the_larger_one_that_browsers_read(label: str, written: str) -> None:
    text = {"cp1254": "€ Ş", "cp932": "①", "gb18030": "€ 镕", "cp949": "똠"}[written]
    assert decode(text.encode(written), declared=label) == text


@pytest.mark.parametrize("share", [0.02, 0.3, 0.49])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_block_of_nul_bytes_is_damage_and_not_binary_data(share: float, encoding: str) -> None:
    log = "2026-11-30 Zürich depth 120\n".encode(encoding) * 50
    lost = bytes(int(len(log) * share / (1 - share)))
    text = decode(log[:-1] + lost + log, declared=encoding)
    assert text == (log + log).decode(encoding)
    assert decode(log + lost, declared=encoding) == log.decode(encoding)


def test_what_is_nul_bytes_for_the_most_part_is_refused() -> None:
    with pytest.raises(Refused, match="NUL bytes for the most part"):
        decode(b"words\n" * 50 + bytes(301))


def test_words_around_a_lost_block_do_not_grow_together() -> None:
    assert (
        decode(b"depth 120" + bytes(20) + b"3 m, and the words that follow")
        == "depth 120\n3 m, and the words that follow"
    )
