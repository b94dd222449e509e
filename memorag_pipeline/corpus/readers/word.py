"""Word documents (.docx, .docm, .dotx, .dotm), as displayed.

In:  the bytes of a package.
Out: paragraphs, lists with their numbers, tables, text boxes, notes, headers and footers; the title; headings.
Wrong: a damaged package: `Refused`.

Deleted and moved-away text is left out, hidden text and comments too. `docs/ingestion.md` says how the rest is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.blocks import Block, Cell, one_line
from memorag_pipeline.corpus.readers.drawing import drawn
from memorag_pipeline.corpus.readers.html import read_html
from memorag_pipeline.corpus.readers.mail import read_saved_page
from memorag_pipeline.corpus.readers.math import formula
from memorag_pipeline.corpus.readers.package import (
    LOCAL,
    Element,
    Package,
    attribute,
    child,
    chosen,
    inside,
    is_on,
    related,
    value,
)
from memorag_pipeline.corpus.readers.runs import Run, plain
from memorag_pipeline.corpus.readers.symbols import seen, symbol
from memorag_pipeline.corpus.readers.word_numbering import BULLET, Numbering
from memorag_pipeline.corpus.readers.word_styles import ParagraphStyle, Setting, Styles, number

_MAIN = ("word/document.xml", "word/document2.xml")
_WRAPPERS = frozenset({"hyperlink", "smartTag", "ins", "moveTo", "customXml", "bdo", "dir", "sdtContent", "subDoc"})
_PAGES = frozenset({"PAGE", "NUMPAGES", "SECTIONPAGES"})
_SYMBOL_FIELD = re.compile(r'\s*SYMBOL\s+(0x[0-9a-f]+|\d+)(?:.*?\\f\s+"?([^"\\]+))?', re.I)
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_NOTES = {"footnoteReference": ("footnote", ""), "endnoteReference": ("endnote", "e")}


def read_word(data: bytes) -> Parsed:
    """The document in a package."""
    package = Package(data)
    main = package.main_part(*_MAIN)
    document = _Document(package, main)
    root = package.tree(main)
    content = _Story(document, main).read(inside(root, "body"))
    sections = [] if root is None else list(root.iter("{*}sectPr"))
    whole = [*document.margins(sections, "header"), *content, *document.margins(sections, "footer")]
    return Parsed(made.joined(whole), package.title(), made.headings(content))


@dataclass
class _Field:
    """An open field: its instruction, and whether its result has begun."""

    code: str = ""
    shows: bool = False


class _Document:
    """What all parts of a document share: styles, numbering and notes."""

    def __init__(self, package: Package, main: str) -> None:
        self.package = package
        self._related = package.relationships(main)

        def part(kind: str) -> Element | None:
            name = next((each.target for each in self._related.values() if each.kind == kind), None)
            return None if name is None else package.tree(name)

        self.styles = Styles(part("styles"))
        self.numbering = Numbering(part("numbering"), self.styles)
        self._even = bool(is_on(part("settings"), "evenAndOddHeaders"))
        self._notes: dict[tuple[str, str], Element] = {}
        self._labels: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        for kind in ("footnote", "endnote"):
            root = part(f"{kind}s")
            for note in () if root is None else root:
                self._notes[kind, attribute(note, "id") or ""] = note

    def note(self, name: str, reference: Element) -> tuple[str, Element | None]:
        """The label of the note that an element refers to, empty if there is none; its content if it is new."""
        kind, prefix = _NOTES[name]
        key = (kind, attribute(reference, "id") or "")
        if key in self._labels or key not in self._notes:
            return self._labels.get(key, ""), None
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        self._labels[key] = f"[^{prefix}{count}]"
        return self._labels[key], self._notes[key]

    def margins(self, sections: list[Element], kind: str) -> list[Block]:
        """Headers or footers of the sections, each text once."""
        found: dict[str, Block] = {}
        for section in sections:
            for reference in section.iterchildren("{*}" + f"{kind}Reference"):
                pages = attribute(reference, "type")
                if (pages == "first" and not is_on(section, "titlePg")) or (pages == "even" and not self._even):
                    continue
                target = self._related.get(related(reference))
                root = None if target is None else self.package.tree(target.target)
                if root is not None and target is not None:
                    for block in _Story(self, target.target, is_margin=True).read(root):
                        found.setdefault(block.text, Block(block.text))
        return list(found.values())


@dataclass
class _Line:
    """A paragraph while it is read: its runs, and what to write after it."""

    style: ParagraphStyle
    runs: list[Run] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[tuple[str, Element]] = field(default_factory=list)
    numbers_pages: bool = False


class _Story:
    """Reads one stream of text: the body, a header, a note. Fields may span several of its paragraphs."""

    def __init__(self, document: _Document, part: str, is_margin: bool = False) -> None:
        self._document, self._part, self._is_margin = document, part, is_margin
        self._styles = document.styles
        self._fields: list[_Field] = []
        self._carried: _Line | None = None

    def read(self, content: Iterable[Element]) -> list[Block]:
        """The blocks of paragraphs, tables and what wraps them."""
        blocks: list[Block] = []
        self._read(content, blocks)
        return blocks + self._left()

    def _left(self) -> list[Block]:
        """End a line that should continue in a next paragraph, when a table or the end of a cell comes instead."""
        if self._carried is None:
            return []
        line, self._carried = self._carried, None
        return self._finished(line, None, "")

    def _read(self, content: Iterable[Element], blocks: list[Block]) -> None:
        for element in content:
            name = LOCAL[element.tag]
            if name == "p":
                blocks += self._paragraph(element)
            elif name == "tbl":
                blocks += self._left() + self._table(element)
            elif name == "sdt" or name in _WRAPPERS:
                self._read(element, blocks)
            elif name == "AlternateContent":
                self._read(chosen(element), blocks)
            elif name == "oMathPara":
                blocks.append(Block(formula(element)))
            elif name == "altChunk":
                blocks += self._included(element)

    def _included(self, element: Element) -> list[Block]:
        """An embedded document that Word imports when opening this one: another Word document, or a page."""
        package = self._document.package
        target = package.relationships(self._part).get(related(element))
        data = b"" if target is None else package.bytes(target.target) or b""
        if data.startswith(b"PK"):
            text = read_word(data).text
        elif re.match(rb"\s*MIME-Version:", data, re.I):
            text = read_saved_page(data)[0]
        elif re.search(rb"<(?:html|body|p|div)\b", data[:2000], re.I):
            text = read_html(data.decode("utf-8", "replace"))[0]
        else:
            return []
        return [Block(text.strip())] if text.strip() else []

    def _paragraph(self, element: Element) -> list[Block]:
        properties = child(element, "pPr")
        style_id = value(properties, "pStyle")
        line = _Line(self._styles.paragraph(style_id))
        if self._carried is not None:
            carried, self._carried = self._carried, None
            line.runs, line.boxes, line.notes = carried.runs, carried.boxes, carried.notes
        self._inline(element, line)
        # A field code that seems to continue in the next paragraph means a damaged file, and would hide its text.
        self._fields = [each for each in self._fields if each.shows]
        mark = child(properties, "rPr")
        if child(mark, "del") is not None or child(mark, "moveFrom") is not None:
            self._carried = line  # its paragraph mark is deleted, so it continues in the next one
            return []
        return self._finished(line, properties, style_id)

    def _finished(self, line: _Line, properties: Element | None, style_id: str | None) -> list[Block]:
        text = plain(line.runs).strip()
        hidden = not text and self._styles.effective(child(properties, "rPr"), line.style).hidden
        numbered = None if hidden else self._document.numbering.next(properties, style_id, line.style)
        outline = number(value(properties, "outlineLvl"))
        level = line.style.level if outline is None else (outline + 1 if outline < 9 else None)
        blocks: list[Block] = []
        if line.numbers_pages and not re.search(r"\d", text) and len(text.split()) <= 3:
            text = ""
        if text and numbered is not None and numbered[0]:
            label, depth = numbered
            indent = "  " * depth if label == BULLET else ""
            text = f"{indent}{label} {text}"
        if text:
            text = one_line(text) if level is not None else text
            blocks.append(Block(text, level, numbered is not None and level is None))
        for box in line.boxes:
            blocks += self._box(box)
        for label, note in line.notes:
            story = _Story(self._document, self._part)
            blocks.append(Block(f"{label}: {' '.join(one_line(block.text) for block in story.read(note))}"))
        return blocks

    def _box(self, element: Element) -> list[Block]:
        if LOCAL[element.tag] == "txbxContent":
            return _Story(self._document, self._part).read(element)
        return [Block(text) for text in drawn(self._document.package, self._part, element)]

    def _inline(self, content: Iterable[Element], line: _Line) -> None:
        for element in content:
            name = LOCAL[element.tag]
            if name == "r":
                self._run(element, line)
            elif name in _WRAPPERS:
                self._inline(element, line)
            elif name == "sdt":
                self._inline(inside(element, "sdtContent"), line)
            elif name == "AlternateContent":
                self._inline(chosen(element), line)
            elif name == "fldSimple":
                self._fields.append(_Field(attribute(element, "instr") or "", shows=True))
                self._inline(element, line)
                self._fields.pop()
            elif name in {"oMath", "oMathPara"} and self._shows(line):
                line.runs.append(Run(formula(element)))

    def _run(self, element: Element, line: _Line) -> None:
        setting = self._styles.effective(child(element, "rPr"), line.style)
        self._run_content(element, setting, line)

    def _run_content(self, content: Iterable[Element], setting: Setting, line: _Line) -> None:
        for element in content:
            name = LOCAL[element.tag]
            if name == "fldChar":
                self._field(element, line)
            elif name == "instrText":
                if self._fields and not self._fields[-1].shows:
                    self._fields[-1].code += element.text or ""
            elif setting.hidden or not self._shows(line):
                continue
            elif name == "t":
                self._add(seen((element.text or "").replace("\n", " "), setting.font), setting, line)
            elif name in _SIGNS:
                self._add(_SIGNS[name], setting, line)
            elif name == "sym":
                self._add(symbol(attribute(element, "font"), _code(attribute(element, "char"))), setting, line)
            elif name in _NOTES:
                label, note = self._document.note(name, element)
                line.runs.append(Run(label))
                line.notes += [] if note is None else [(label, note)]
            elif name == "ruby":
                self._ruby(element, line)
            elif name == "AlternateContent":
                self._run_content(chosen(element), setting, line)
            elif name in {"drawing", "pict", "object"}:
                line.boxes += _boxes(element)

    def _add(self, text: str, setting: Setting, line: _Line) -> None:
        line.runs.append(Run(text, setting.raised or 0, bool(setting.struck or setting.double_struck)))

    def _ruby(self, element: Element, line: _Line) -> None:
        self._inline(inside(element, "rubyBase"), line)
        above = _Line(line.style)
        self._inline(inside(element, "rt"), above)
        if reading := plain(above.runs).strip():
            line.runs.append(Run(f"({reading})"))

    def _field(self, element: Element, line: _Line) -> None:
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            shows = self._shows(line)
            self._fields.append(_Field())
            if shows:
                line.runs.append(Run(_form_field(element)))
        elif kind == "separate" and self._fields:
            self._fields[-1].shows = True
        elif kind == "end" and self._fields:
            ended = self._fields.pop()
            if not ended.shows and (found := _SYMBOL_FIELD.match(ended.code)) and self._shows(line):
                line.runs.append(Run(symbol((found[2] or "Symbol").strip(), int(found[1], 0))))

    def _shows(self, line: _Line) -> bool:
        """Whether text is visible here: not within a field code, and not a page number in a header or footer."""
        for each in self._fields:
            if not each.shows:
                return False
            if self._is_margin and each.code.split(None, 1)[:1] and each.code.split(None, 1)[0].upper() in _PAGES:
                line.numbers_pages = True
                return False
        return True

    def _table(self, element: Element) -> list[Block]:
        rows: list[list[Cell]] = []
        for row in _unwrapped(element, "tr"):
            properties = child(row, "trPr")
            if child(properties, "del") is not None or is_on(properties, "hidden"):
                continue
            column = number(value(properties, "gridBefore")) or 0
            cells: list[Cell] = []
            for each in _unwrapped(row, "tc"):
                own = child(each, "tcPr")
                merged = child(own, "vMerge")
                goes_on = merged is not None and attribute(merged, "val") != "restart"
                is_read = child(own, "cellDel") is None and (value(own, "hMerge") or "restart") == "restart"
                blocks: list[Block] = []
                if is_read:
                    self._read(each, blocks)
                    blocks += self._left()
                cells.append(Cell(blocks, column, goes_on))
                column += max(number(value(own, "gridSpan")) or 1, 1)
            rows.append(cells)
        return made.table(rows)


def _unwrapped(content: Iterable[Element], name: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, also those in content controls and insertions."""
    for element in content:
        local = LOCAL[element.tag]
        if local == name:
            yield element
        elif local == "sdt" or local in _WRAPPERS:
            yield from _unwrapped(element, name)
        elif local == "AlternateContent":
            yield from _unwrapped(chosen(element), name)


def _boxes(element: Element) -> list[Element]:
    """Text boxes, charts and diagrams in a drawing; of alternative representations, one."""
    name = LOCAL[element.tag]
    if name in {"txbxContent", "chart", "relIds"}:
        return [element]
    content = chosen(element) if name == "AlternateContent" else element
    return [box for each in content for box in _boxes(each)]


def _code(digits: str | None) -> int:
    """A character code from hexadecimal digits; 0 if it is invalid."""
    return int(digits, 16) if digits and re.fullmatch("[0-9A-Fa-f]{1,6}", digits) else 0


def _form_field(element: Element) -> str:
    """The displayed value of a legacy form field: a box that is ticked or not, the item that is chosen."""
    form = child(element, "ffData")
    if (box := child(form, "checkBox")) is not None:
        ticked = is_on(box, "checked")
        return "☒" if (is_on(box, "default") if ticked is None else ticked) else "☐"
    items = [attribute(each, "val") or "" for each in inside(form, "ddList") if LOCAL[each.tag] == "listEntry"]
    at = number(value(form, "ddList", "result")) or 0
    return items[at] if at < len(items) else ""
