"""RTF as displayed: paragraphs, tables, text boxes, list numbers, notes, headers and footers.

In:  the bytes of a document.
Out: its text, the title of its metadata, its headings.
An unclosed group ends with the document, unknown control words are ignored.

Deleted, moved-away and hidden text is left out, and so are comments, pictures and embedded objects. Characters are read
in the set of the font that they are in. Time is linear in the document.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field, replace

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.readers.blocks import Block, headings, joined
from memorag_pipeline.corpus.readers.rtf_words import (
    ASIDE,
    BOXES,
    CELLS,
    CHARSETS,
    DOCUMENT_SETS,
    KEPT,
    PARAGRAPHS,
    SIGNS,
    SKIPPED,
    SYMBOLS,
)
from memorag_pipeline.corpus.readers.runs import Run, plain

_TOKEN = re.compile(
    r"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([^\\{}\r\n]+)|[\r\n]+|\\", re.S
)
_HEADING = re.compile(r"(?:heading|überschrift|titre|título|titolo|rubrik|kop)\s*([1-9])", re.I)
_NOTE = "[^{}]"


@dataclass
class _State:
    """How the text of a group is formatted, and where it goes."""

    skipped: bool = False
    raised: int = 0
    struck: bool = False
    hidden: bool = False
    gone: bool = False
    font: int = -1
    level: int | None = None  # as a heading
    in_table: bool = False
    skip: int = 1  # fallback characters after \\u
    aside: int = 0  # number of open texts: the body, a header, a note of that header
    table: str = ""  # the document table in this group: fonts, styles, information
    is_new: bool = True  # only `\\*` was read of the group

    @property
    def is_seen(self) -> bool:
        return not (self.skipped or self.hidden or self.gone or self.table)


@dataclass
class _Text:
    """A text under construction: the body, a note, a header."""

    blocks: list[Block] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    boxes: list[_Text] = field(default_factory=list)  # their text follows the paragraph that they are in
    in_list: bool = False

    def end_paragraph(self, level: int | None = None) -> None:
        text = plain(self.runs).strip(" \n")
        self.runs = []
        if self.cells:
            text = "\t".join([*self.cells, *([text] if text else [])]).rstrip("\t")
            self.cells = []
            self.blocks.append(Block(text, is_item=True))
        elif text:
            if self.in_list:
                text = re.sub(r"^(\S+)\t\s*", lambda mark: f"{mark[1] if mark[1][:1].isalnum() else '-'} ", text)
            is_heading = level is not None
            self.blocks.append(Block(" ".join(text.split()) if is_heading else text, level, self.in_list))
        self.in_list = False
        for box in self.boxes:
            self.blocks += box.blocks
        self.boxes = []

    def end_cell(self) -> None:
        self.cells.append(" ".join(plain(self.runs).split()))
        self.runs = []


def read_rtf(data: bytes) -> Parsed:
    """The text of a document, its title and its headings."""
    return _Reader(data.decode("latin-1")).read()


class _Reader:
    """Reads one document."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._state, self._outer = _State(), list[_State]()
        self._body, self._texts = _Text(), list[_Text]()
        self._text = self._body
        self._notes: list[_Text] = []
        self._asides: dict[str, list[_Text]] = {"header": [], "footer": []}
        self._bytes = bytearray()  # bytes buffered until their word is complete
        self._high = 0  # the first half of a character beyond 16 bits
        self._left_out = 0  # fallback characters of the last \\u that are left
        self._set = "cp1252"
        self._default_font = -1
        self._fonts: dict[int, str] = {}
        self._styles: dict[int, int] = {}
        self._style_number, self._style_level = 0, 0
        self._entry = ""
        self._title = ""

    def read(self) -> Parsed:
        """The document."""
        place, source = 0, self._source
        while place < len(source):
            token = _TOKEN.match(source, place)
            if token is None:
                break
            place = token.end()
            word, number, code, symbol, brace, text = token.groups()
            if word == "bin":
                place += max(int(number or 0), 0)
            elif word:
                self._word(word, None if number is None else int(number))
            elif code:
                self._byte(int(code, 16))
            elif symbol:
                self._symbol(symbol)
            elif brace:
                self._open() if brace == "{" else self._close()
            elif text:
                self._characters(text)
        self._flush()
        while self._outer:
            self._close()
        return self._parsed()

    def _parsed(self) -> Parsed:
        self._body.end_paragraph(self._state.level)
        before = _once(self._asides["header"])
        after = _once(self._asides["footer"])
        notes = [Block(f"{_NOTE.format(number)}: {joined(note.blocks)}") for number, note in enumerate(self._notes, 1)]
        blocks = [*before, *self._body.blocks, *notes, *after]
        title = " ".join(self._title.split())
        return Parsed(joined(blocks), title or None, headings(blocks))

    def _open(self) -> None:
        self._flush()
        self._outer.append(self._state)
        self._state = replace(self._state, is_new=True)

    def _close(self) -> None:
        self._flush()
        if not self._outer:
            return
        state, self._state = self._state, self._outer.pop()
        if state.aside > self._state.aside:
            self._text.end_paragraph(state.level)
            self._text = self._texts.pop()
        if state.table == "stylesheet" and self._state.table == "stylesheet" and not state.skipped:
            self._end_style()

    def _symbol(self, symbol: str) -> None:
        if symbol == "*":
            if self._state.is_new:
                self._state.table = self._state.table or "?"
        elif symbol in "\r\n":
            self._word("par", None)
        elif symbol in SYMBOLS:
            self._put(SYMBOLS[symbol])

    def _word(self, word: str, number: int | None) -> None:
        if self._left_out and word in SIGNS:
            self._left_out -= 1
            return
        self._flush()
        state = self._state
        if state.is_new:
            state.is_new = False
            if self._begins_group(word):
                return
        if word in SIGNS:
            self._put(SIGNS[word])
        elif word == "u" and number is not None:
            self._unicode(number)
        elif word in PARAGRAPHS or word in CELLS:
            if state.is_seen:
                self._end(word)
        else:
            self._set_up(word, number)

    def _begins_group(self, word: str) -> bool:
        """Whether the word is the destination of the group."""
        state = self._state
        ignorable, state.table = state.table == "?", "" if state.table == "?" else state.table
        if word in {"fonttbl", "stylesheet", "info"}:
            state.table = word
        elif word == "title" and state.table == "info":
            state.table = "title"
        elif word == "upr":  # the same text twice: for old programs, and in Unicode
            state.table = f"upr {state.table}"
        elif word == "ud":
            state.table = state.table.removeprefix("upr ")
        elif word in ASIDE or word in BOXES:
            self._begin_aside(word)
        elif word in SKIPPED or (word[0] == "m" and word.endswith("Pr")):
            state.skipped = True
        elif word in {"msup", "msub"}:
            state.raised = 1 if word == "msup" else -1
        elif word == "mden":
            self._put("/")
        elif word in {"listtext", "pntext"}:
            self._text.in_list = state.is_seen
        elif ignorable and word not in KEPT and not state.table:
            state.skipped = True
        else:
            return word in KEPT
        return True

    def _begin_aside(self, word: str) -> None:
        """A text that is not part of its surrounding line."""
        state = self._state
        if not state.is_seen:
            state.skipped = True
            return
        around, self._text = self._text, _Text()
        self._texts.append(around)
        state.aside = len(self._texts)
        state.raised, state.struck, state.level, state.in_table = 0, False, None, False
        if word in BOXES:
            around.boxes.append(self._text)
        elif word[:6] in self._asides:
            self._asides[word[:6]].append(self._text)
        else:
            self._notes.append(self._text)
            around.runs.append(Run(_NOTE.format(len(self._notes))))

    def _end(self, word: str) -> None:
        if word in CELLS:
            self._text.end_cell()
        elif word in {"row", "nestrow"} or not (self._text.cells or self._state.in_table):
            self._text.end_paragraph(self._state.level)
        elif self._text.runs:
            self._text.runs.append(Run(" "))  # a paragraph within a cell

    def _set_up(self, word: str, number: int | None) -> None:
        state = self._state
        on = number != 0
        if word == "plain":
            state.raised, state.struck, state.hidden, state.gone = 0, False, False, False
            state.font = self._default_font
        elif word == "pard":
            state.level, state.in_table = None, False
        elif word == "intbl":
            state.in_table = on
        elif word in {"super", "sub"}:
            state.raised = (1 if word == "super" else -1) if on else 0
        elif word == "nosupersub":
            state.raised = 0
        elif word in {"up", "dn"}:
            state.raised = 0 if (number if number is not None else 6) < 3 else 1 if word == "up" else -1
        elif word in {"strike", "striked"}:
            state.struck = on
        elif word == "v":
            state.hidden = on
        elif word in {"deleted", "mvf"}:
            state.gone = on
        elif word == "uc":
            state.skip = max(number or 0, 0)
        elif word == "ansicpg" and number:
            self._set = _codec(f"cp{number}") or self._set
        elif word in DOCUMENT_SETS:
            self._set = DOCUMENT_SETS[word]
        else:
            self._set_style(word, number)

    def _set_style(self, word: str, number: int | None) -> None:
        state = self._state
        if word == "f" and number is not None:
            state.font = number
        elif word == "deff" and number is not None:
            state.font = self._default_font = number
        elif word == "fcharset" and state.table == "fonttbl" and number in CHARSETS:
            self._fonts[state.font] = CHARSETS[number]
        elif word in {"s", "outlinelevel"} and number is not None:
            if state.table == "stylesheet":
                if word == "s":
                    self._style_number = number
                else:
                    self._style_level = number + 1
            elif word == "s":
                state.level = self._styles.get(number)
            elif number < 9:
                state.level = number + 1

    def _end_style(self) -> None:
        named = _HEADING.match(self._entry.strip())
        level = int(named[1]) if named else self._style_level
        if 0 < level < 10:
            self._styles[self._style_number] = level
        self._entry, self._style_number, self._style_level = "", 0, 0

    def _unicode(self, number: int) -> None:
        code = number + 0x10000 if number < 0 else number
        self._left_out = self._state.skip
        if 0xD800 <= code < 0xDC00:
            self._high = code
            return
        if 0xDC00 <= code < 0xE000 and self._high:
            code = 0x10000 + ((self._high - 0xD800) << 10) + (code - 0xDC00)
        self._high = 0
        if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000:
            self._put(chr(code))

    def _byte(self, code: int) -> None:
        self._state.is_new = False
        if self._left_out:
            self._left_out -= 1
        else:
            self._bytes.append(code)

    def _characters(self, text: str) -> None:
        self._state.is_new = False
        if self._state.skipped:
            return
        if self._left_out:
            left_out = min(self._left_out, len(text))
            self._left_out -= left_out
            text = text[left_out:]
        self._bytes += text.encode("latin-1")

    def _flush(self) -> None:
        if self._bytes:
            data = bytes(self._bytes)
            self._bytes.clear()
            self._put(data.decode(self._fonts.get(self._state.font, self._set), "replace"))
        self._left_out = 0

    def _put(self, text: str) -> None:
        if self._bytes:
            waiting = bytes(self._bytes)
            self._bytes.clear()
            text = waiting.decode(self._fonts.get(self._state.font, self._set), "replace") + text
        state = self._state
        state.is_new = False
        if state.table == "stylesheet":
            self._entry += text
        elif state.table == "title":
            self._title += text
        elif state.is_seen:
            self._text.runs.append(Run(text, state.raised, state.struck))


def _once(texts: list[_Text]) -> list[Block]:
    """The blocks of headers or footers; one that several sections share appears once."""
    found = {joined(text.blocks): None for text in texts}
    return [Block(text) for text in found if text]


def _codec(name: str) -> str | None:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None
