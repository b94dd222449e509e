"""RTF as displayed: no number changes, deleted and hidden words are left out, every other word is read."""

from __future__ import annotations

import time

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.readers.rtf import read_rtf
from tests.corpus.test_text import read


def text_of(body: str) -> str:
    return read_rtf(rf"{{\rtf1\ansi\ansicpg1252 {body}}}".encode("latin-1")).text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r"10{\super 6} m\super 2\nosupersub , H{\sub 2}O, 5\up6 th\up0  end", "10^6 m^2, H2O, 5th end"),
        (r"is {\strike 900}750 and {\striked1 old}new", "is ~~900~~ 750 and ~~old~~ new"),
        (r"is {\deleted three months}{\revised six weeks}", "is six weeks"),
        (r"a{\mvf moved}b{\mvt moved}", "abmoved"),
        (r"{\v hidden}shown\v  hidden\v0  again{\v x\plain  kept}", "shown again kept"),
        (
            r"Stra\'dfe, \u8364?5, \'93q\'94, {\uc2\u8364 xxd}, \u-10179?\u-8704?",
            "Straße, €5, \u201cq\u201d, €d, \U0001f600",
        ),
        (r"\u8226\bullet x", "\u2022x"),
        (r"{\fonttbl{\f0 A;}{\f1\fcharset204 B;}{\f2\fcharset128 C;}}\f1\'cf\'f0 \plain\f2\'8d\'60", "Пр 港"),
        (r"no\_break\~space soft\-hyphen \{x\}", "no-break\xa0space softhyphen {x}"),
        (r"Lund\tab 120\tab 3", "Lund\t120\t3"),
        (r"a\line b\par c\page d", "a\nb\n\nc\n\nd"),
        (
            r"\trowd\intbl Lund\par x\cell 120\cell 3\cell\row\trowd\intbl Vik\cell\cell 4\cell\row\pard after",
            "Lund x\t120\t3\nVik\t\t4\n\nafter",
        ),
        (r"\pard{\listtext 1.1\tab}First\par{\listtext \'b7\tab}Second\par", "1.1 First\n- Second"),
        (r"1984{\super\chftn}{\footnote\pard {\super\chftn} The note.} on", "1984[^1] on\n\n[^1]: The note."),
        (r"{\header Head\par}{\footer Foot}Body\sect{\header Head}More", "Head\n\nBody\n\nMore\n\nFoot"),
        (
            r"The {\shp{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt Box words\par}}{\shprslt Box words}}fee",
            "The fee\n\nBox words",
        ),
        (r"{\field{\*\fldinst HYPERLINK x}{\fldrslt link}} {\*\annotation no}{\pict 89504e47}y", "link y"),
        (r"{\object{\*\objdata 0105}{\result seen}}{\*\unknown no}{\unknown yes}", "seenyes"),
        (r"{\upr{old}{\*\ud{n\u233?w}}}", "néw"),
        (r"{\mmath{\*\moMath{\msSup{\msSupPr{\mctrlPr}}{\me{\mr x}}{\msup{\mr 2}}}}}", "x^2"),
        (r"{\pict\bin5 {{{{{}after", "after"),
        (r"one {two {three", "one two three"),
        ("word", "word"),
    ],
)
def test_a_document_is_read_as_it_is_seen(body: str, expected: str) -> None:
    assert text_of(body) == expected


def test_title_and_headings(parser: Parser) -> None:
    data = r"{\rtf1\ansi{\stylesheet{\s1\outlinelevel0 heading 1;}{\s5 Rubrik 2;}}"
    data += r"{\info{\title The {\b Title}}{\author X}}\pard\s1{\listtext\pard 1\tab}One\par"
    data += r"\pard Words.\par\pard\s5 Two\par\pard\outlinelevel2 Three\par\pard End}"
    document = read(parser, "a.rtf", data.encode())
    assert document.title == "The Title"
    assert [(heading.level, heading.text) for heading in document.headings] == [(1, "1 One"), (2, "Two"), (3, "Three")]
    assert "Words." in document.text and "heading" not in document.text


@pytest.mark.parametrize(
    "text", [r"{\rtf1\ansi " + "{" * 200_000, r"{\rtf1\ansi " + r"\u1?" * 100_000 + "}", "{\\rtf1 " + "\\" * 10**5]
)
def test_time_is_linear(text: str) -> None:
    started = time.process_time()
    read_rtf(text.encode())
    assert time.process_time() - started < 5
