"""The text of OpenDocument files: paragraphs, lists and tables, which all kinds share.

In:  elements of `content.xml`.
Out: blocks.

Deleted text, hidden text and comments are left out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.blocks import Block, Cell, one_line
from memorag_pipeline.corpus.readers.open_styles import Counter, Styles, of
from memorag_pipeline.corpus.readers.package import LOCAL, Element, Package, child
from memorag_pipeline.corpus.readers.runs import Run, plain
from memorag_pipeline.corpus.readers.word_styles import NOTHING, Setting, number

_SPACE = re.compile(r"[ \t\r\n]+")
_MOST_REPEATED = 1000  # spaces, columns or rows that one element may repeat; more are empty
_SKIPPED = frozenset({
    "tracked-changes", "annotation", "annotation-end", "forms", "sequence-decls", "variable-decls", "user-field-decls",
    "event-listeners", "title", "desc", "glue-point", "image", "object-ole", "plugin", "applet", "number",
    "note-citation", "list-style", "notes",
})  # fmt: skip
_HIDDEN = frozenset({"hidden-text", "hidden-paragraph"})
_PAGES = frozenset({"page-number", "page-count"})
_DRAWN = frozenset({
    "frame", "custom-shape", "rect", "ellipse", "circle", "line", "polyline", "polygon", "path", "connector", "caption",
    "g", "regular-polygon", "measure", "text-box",
})  # fmt: skip


@dataclass
class _Line:
    """A paragraph while it is read."""

    runs: list[Run] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[tuple[str, Element]] = field(default_factory=list)
    is_hidden: bool = False
    numbers_pages: bool = False


class Reader:
    """Reads the content of one document; lists and notes are counted through it."""

    def __init__(self, package: Package, styles: Styles) -> None:
        self._package, self.styles = package, styles
        self._outline = Counter(styles.outline)
        self._lists: dict[str, Counter] = {}
        self._by_style: dict[str, Counter] = {}
        self._notes: dict[str, int] = {}
        self.is_margin = False

    def blocks(self, content: Iterable[Element], setting: Setting = NOTHING) -> list[Block]:
        """The blocks in some content."""
        found: list[Block] = []
        for element in content:
            name = LOCAL[element.tag]
            if name in {"p", "h"}:
                found += self._paragraph(element, setting)
            elif name == "list":
                found += self._list(element, None, 1, setting)
            elif name == "numbered-paragraph":
                found += self._numbered(element, setting)
            elif name == "table":
                found += self._table(element)
            elif name == "section" and _is_hidden_section(element):
                continue
            elif name == "object":
                found += self._object(element)
            elif name not in _SKIPPED and not name.endswith("-source"):
                found += self.blocks(element, setting)
        return found

    def line(self, element: Element, setting: Setting = NOTHING) -> str:
        """The text of a single paragraph."""
        line = _Line()
        self._inline(element, self._own(element, setting), line)
        return "" if line.is_hidden else plain(line.runs).strip()

    def _own(self, element: Element, setting: Setting) -> Setting:
        return self.styles.setting("paragraph", of(element, "text:style-name")).over(setting)

    def _paragraph(self, element: Element, setting: Setting, label: str = "", is_item: bool = False) -> list[Block]:
        line = _Line()
        self._inline(element, self._own(element, setting), line)
        text = plain(line.runs).strip()
        level = (number(of(element, "text:outline-level")) or 1) if LOCAL[element.tag] == "h" else None
        if level is not None and not label and of(element, "text:is-list-header") != "true" and text:
            start = of(element, "text:start-value") if of(element, "text:restart-numbering") == "true" else None
            label = self._outline.next(level, start)
        if line.numbers_pages and not re.search(r"\d", text) and len(text.split()) <= 3:
            text = ""
        if line.is_hidden:
            return []
        if text and label:
            text = f"{label} {text}"
        blocks = [Block(one_line(text) if level is not None else text, level, is_item)] if text else []
        for box in line.boxes:
            blocks += self.blocks(box)
        for name, note in line.notes:
            words = " ".join(one_line(block.text) for block in self.blocks(note))
            blocks.append(Block(f"{name}: {words}"))
        return blocks

    def _inline(self, element: Element, setting: Setting, line: _Line) -> None:
        self._add(element.text, setting, line)
        for each in element:
            name = LOCAL[each.tag]
            if name == "span":
                style = self.styles.setting("text", of(each, "text:style-name"))
                self._inline(each, style.over(setting), line)
            elif name == "s":
                self._raw(" " * min(number(of(each, "text:c")) or 1, _MOST_REPEATED), setting, line)
            elif name == "tab":
                self._raw("\t", setting, line)
            elif name == "line-break":
                self._raw("\n", setting, line)
            elif name == "note":
                self._note(each, line)
            elif name in _HIDDEN:
                hidden = (of(each, "text:is-hidden") or "true") != "false"
                line.is_hidden |= hidden and name == "hidden-paragraph"
                if not hidden:
                    self._inline(each, setting, line)
            elif name == "ruby":
                self._ruby(each, setting, line)
            elif name in _PAGES and self.is_margin:
                line.numbers_pages = True
            elif name in _DRAWN:
                if formula := self._formula(child(each, "object")):
                    self._raw(formula, setting, line)
                else:
                    line.boxes.append(each)
            elif name not in _SKIPPED:
                self._inline(each, setting, line)
            self._add(each.tail, setting, line)

    def _add(self, text: str | None, setting: Setting, line: _Line) -> None:
        """Text in which line breaks and tabs of the XML are spaces, and several spaces are one."""
        if not text or setting.hidden:
            return
        text = _SPACE.sub(" ", text)
        before = line.runs[-1].text[-1:] if line.runs else ""
        self._raw(text[1:] if text[0] == " " and before == " " else text, setting, line)

    def _raw(self, text: str, setting: Setting, line: _Line) -> None:
        if text and not setting.hidden:
            line.runs.append(Run(text, setting.raised or 0, bool(setting.struck)))

    def _note(self, element: Element, line: _Line) -> None:
        kind = of(element, "text:note-class") or "footnote"
        body = child(element, "note-body")
        if body is not None:
            self._notes[kind] = self._notes.get(kind, 0) + 1
            label = f"[^{'e' if kind == 'endnote' else ''}{self._notes[kind]}]"
            line.runs.append(Run(label))
            line.notes.append((label, body))

    def _embedded(self, element: Element | None) -> Element | None:
        """The root of an embedded document: a formula, a chart."""
        target = None if element is None else element.get("{http://www.w3.org/1999/xlink}href")
        return self._package.tree(posixpath.join(posixpath.normpath(target), "content.xml")) if target else None

    def _formula(self, element: Element | None) -> str:
        """A formula in the notation of the program that wrote it, such as `x^2 over 3`; empty for another object."""
        root = self._embedded(element)
        if root is None or LOCAL[root.tag] != "math":
            return ""
        notation = next(root.iter("{*}annotation"), root)
        return " ".join("".join(notation.itertext()).split())

    def _object(self, element: Element) -> list[Block]:
        """The title and the values of a chart."""
        root = self._embedded(element)
        chart = child(root, "body", "chart", "chart")
        if chart is None:
            return []
        titles = [each for each in chart if LOCAL[each.tag] in {"title", "subtitle"}]
        return [*(block for title in titles for block in self.blocks(title)), *self.blocks(chart)]

    def _ruby(self, element: Element, setting: Setting, line: _Line) -> None:
        base, above = child(element, "ruby-base"), child(element, "ruby-text")
        if base is not None:
            self._inline(base, setting, line)
        if above is not None and (reading := "".join(above.itertext()).strip()):
            self._raw(f"({reading})", setting, line)

    def _list(self, element: Element, above: Counter | None, level: int, setting: Setting) -> list[Block]:
        counter = above if above is not None else self._counter(element)
        blocks: list[Block] = []
        for item in element:
            is_header = LOCAL[item.tag] == "list-header"
            label = ""
            first = next((LOCAL[each.tag] for each in item if LOCAL[each.tag] not in _SKIPPED), "")
            if not is_header and first != "list":
                label = counter.next(level, of(item, "text:start-value"))
            label = "  " * (level - 1) + label if label == "-" else label
            for each in item:
                name = LOCAL[each.tag]
                if name in {"p", "h"}:
                    found = self._paragraph(each, setting, label, is_item=True)
                    blocks += found
                    label = "" if found else label
                elif name == "list":
                    blocks += self._list(each, counter, level + 1, setting)
                elif name not in _SKIPPED:
                    blocks += self.blocks([each], setting)
        return blocks

    def _counter(self, element: Element) -> Counter:
        """The counter of a list: a new one, or that of the list that it continues."""
        name, own_id = of(element, "text:style-name") or "", element.get("{http://www.w3.org/XML/1998/namespace}id")
        continued = of(element, "text:continue-list")
        found = self._lists.get(continued) if continued else None
        if found is None and of(element, "text:continue-numbering") == "true":
            found = self._by_style.get(name)
        counter = found or Counter(self.styles.lists.get(name, {}))
        self._by_style[name] = counter
        if own_id:
            self._lists[own_id] = counter
        return counter

    def _numbered(self, element: Element, setting: Setting) -> list[Block]:
        level, list_id = number(of(element, "text:level")) or 1, of(element, "text:list-id") or ""
        counter = self._lists.get(list_id)
        if counter is None:
            counter = Counter(self.styles.lists.get(of(element, "text:style-name") or "", {}))
            self._lists[list_id] = counter
        label = counter.next(level, of(element, "text:start-value"))
        return [
            block
            for each in element
            if LOCAL[each.tag] in {"p", "h"}
            for block in self._paragraph(each, setting, label, is_item=True)
        ]

    def _table(self, element: Element) -> list[Block]:
        rows: list[list[Cell]] = []
        spans: dict[int, int] = {}  # by column, how many more rows a cell spans
        for row in rows_of(element):
            cells: list[Cell] = []
            column = 0
            for each in row:
                name = LOCAL[each.tag]
                if name not in {"table-cell", "covered-table-cell"}:
                    continue
                goes_on = name == "covered-table-cell" and spans.get(column, 0) > 0
                if name == "table-cell":
                    spans[column] = number(of(each, "table:number-rows-spanned")) or 1
                cells.append(Cell([] if goes_on else self.blocks(each), column, goes_on))
                column += min(number(of(each, "table:number-columns-repeated")) or 1, _MOST_REPEATED)
            spans = {at: left - 1 for at, left in spans.items()}
            rows.append(cells)
        return made.table(rows)


def _is_hidden_section(element: Element) -> bool:
    shown = of(element, "text:display") or "true"
    return shown == "none" or (shown == "condition" and of(element, "text:is-hidden") == "true")


def rows_of(table: Element) -> Iterator[Element]:
    """The rows of a table, those in groups and headers too, except hidden ones."""
    for element in table:
        name = LOCAL[element.tag]
        if name == "table-row":
            if (of(element, "table:visibility") or "visible") == "visible":
                yield element
        elif name in {"table-rows", "table-header-rows"} or (
            name == "table-row-group" and of(element, "table:display") != "false"
        ):
            yield from rows_of(element)
