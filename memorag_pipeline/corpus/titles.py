"""Titles that documents declare in their metadata; default titles of programs are rejected.

In:  a title as declared.
Out: the title on one line, None if it is what a program writes when nobody gave one.
"""

from __future__ import annotations

import re
import unicodedata

_MOST = 200  # characters
# For files made with document programs, and for any file if the title is one word.
_DOCUMENTS = "cdr|docx?|docm|dotx?|dvi|fm|indd|od[gpst]|p65|pdf|pm[4-6]|pptx?|potx?|ps|pub|qxd|rtf|wpd|wps|vsdx?|xlsx?"
# Default names of presentations and sheets in other languages.
_PRESENTATIONS = (
    "presentation|präsentation|présentation|presentación|presentazione|apresentação|presentatie|presentasjon|præsentation"
    "|esitys|prezentace|prezentacja|bemutató|презентация|演示文稿|簡報|プレゼンテーション|프레젠테이션"
)
_SHEETS = (
    "worksheet|tabelle|feuil|feuille|hoja|foglio|planilha|plan|folha|blad|ark|taul|taulukko|munka|list|hárok|arkusz"
    "|лист|аркуш|sayfa|φύλλο|シート|工作表|시트|diapositive|diapositiva"
)
_NONE = re.compile(
    rf"""
      anonymous|unknown|unnamed|untitled|no\ title|null|none|title|titel|sans\ titre|ohne\ titel|unbenannt
      |(?:untitled|unbenannt)?[ _-]*(?:document|dokument|doc|slide|folie|workbook|mappe|sheet|page|blank)[ _-]*\d*
      |(?:untitled|unbenannt)[ _-]*\d+
      |(?:microsoft|ms)\ (?:office\ )?(?:word|excel|powerpoint|publisher|visio)(?:\ *-.*|\ document)?
      |(?:powerpoint|word|excel|libreoffice|openoffice)\ (?:document|presentation|spreadsheet)
      |powerpoint[ -](?:{_PRESENTATIONS})
      |(?:{_PRESENTATIONS})\ (?:de\ |do\ |di\ )?powerpoint
      |(?:{_PRESENTATIONS}|{_SHEETS}|classeur|документ|文档|文書)[ _-]*\d+
      |book\d+
      |.*\.(?:{_DOCUMENTS})
      |\S*\.(?:ai|eps|html?|key|md|numbers|pages|rst|tex|txt|xml)
      |(?:[a-z]:\\|file:|https?:).*
      |[0-9a-f]{{8}}(?:-?[0-9a-f]{{4}}){{3}}-?[0-9a-f]{{12}}
    """,
    re.X | re.I,
)
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")


def declared_words(title: str | None) -> str | None:
    """The words of a declared title, None if it says nothing about the document."""
    # Programs pad titles with NULs, which separate nothing.
    kept = "".join(sign for sign in title or "" if sign.isspace() or unicodedata.category(sign) not in {"Cc", "Cs"})
    words = " ".join(kept.split())[:_MOST]
    bare = _AROUND.sub("", words)
    return None if not bare or _NONE.fullmatch(bare) else words
