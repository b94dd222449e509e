"""Presentations (.pptx, .pptm, .ppsx, .potx): the slides in presentation order.

In:  the bytes of a package.
Out: of each visible slide its title, its other texts, tables, charts and diagrams, and the speaker's notes;
     footers once; the title; the titles of slides as headings.
Wrong: a damaged package: `Refused`.

Hidden slides and shapes, comments, dates, slide numbers, and content of masters and layouts are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.blocks import Block, Cell, one_line
from memorag_pipeline.corpus.readers.drawing import drawn, paragraphs
from memorag_pipeline.corpus.readers.package import (
    LOCAL,
    OFF,
    Element,
    Package,
    attribute,
    child,
    chosen,
    inside,
    related,
    value,
)

_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "sldNum", "sldImg"})
_MARGINS = frozenset({"ftr", "hdr"})
_NAMES = ("nvSpPr", "nvGrpSpPr", "nvGraphicFramePr", "nvPicPr", "nvCxnSpPr")


def read_powerpoint(data: bytes) -> Parsed:
    """The presentation in a package."""
    package = Package(data)
    main = package.main_part("ppt/presentation.xml")
    parts = package.relationships(main)
    content: list[Block] = []
    footers: dict[str, Block] = {}
    for entry in inside(package.tree(main), "sldIdLst"):
        target = parts.get(related(entry))
        root = None if target is None else package.tree(target.target)
        if target is None or root is None or (attribute(root, "show") or "1").lower() in OFF:
            continue
        slide = _Slide(package, target.target)
        slide.read(inside(root, "cSld", "spTree"))
        content += [*slide.titles, *slide.blocks, *_notes(package, target.target)]
        footers |= {block.text: block for block in slide.margins if block.text not in footers}
    return Parsed(made.joined([*content, *footers.values()]), package.title(), made.headings(content))


def _notes(package: Package, part: str) -> Iterator[Block]:
    for target in package.relationships(part).values():
        root = package.tree(target.target) if target.kind == "notesSlide" else None
        if root is not None:
            notes = _Slide(package, target.target)
            notes.read(inside(root, "cSld", "spTree"))
            if notes.blocks:
                yield Block("Notes: " + made.joined(notes.blocks))


class _Slide:
    """The texts of one slide: its titles, its footers, and the rest, separately."""

    def __init__(self, package: Package, part: str) -> None:
        self._package, self._part = package, part
        self.titles: list[Block] = []
        self.blocks: list[Block] = []
        self.margins: list[Block] = []

    def read(self, shapes: Iterable[Element]) -> None:
        """Add the texts of shapes and of the shapes in them."""
        for shape in shapes:
            name = LOCAL[shape.tag]
            if name == "AlternateContent":
                self.read(chosen(shape))
                continue
            known = next((found for each in _NAMES if (found := child(shape, each)) is not None), None)
            if (value(known, "cNvPr", of="hidden") or "0").lower() not in OFF:
                continue
            if name == "grpSp":
                self.read(shape)
            elif name == "sp":
                self._shape(shape, value(shape, "nvSpPr", "nvPr", "ph", of="type"))
            elif name == "graphicFrame":
                for data in inside(shape, "graphic", "graphicData"):
                    self._graphic(data)

    def _shape(self, shape: Element, placeholder: str | None) -> None:
        body = child(shape, "txBody")
        text = "" if body is None or placeholder in _FURNITURE else "\n".join(paragraphs(body))
        if not text:
            return
        if placeholder in _TITLES:
            self.titles.append(Block(one_line(text), 1))
        else:
            (self.margins if placeholder in _MARGINS else self.blocks).append(Block(text))

    def _graphic(self, data: Element) -> None:
        name = LOCAL[data.tag]
        if name == "tbl":
            self.blocks += made.table([self._row(row) for row in data.iterchildren("{*}tr")])
        elif name in {"chart", "relIds"}:
            self.blocks += [Block(text) for text in drawn(self._package, self._part, data)]

    def _row(self, row: Element) -> list[Cell]:
        cells: list[Cell] = []
        for at, each in enumerate(row.iterchildren("{*}tc")):
            if (attribute(each, "hMerge") or "0").lower() not in OFF:
                continue
            body = child(each, "txBody")
            blocks = [] if body is None else [Block(text) for text in paragraphs(body)]
            goes_on = (attribute(each, "vMerge") or "0").lower() not in OFF
            cells.append(Cell([] if goes_on else blocks, at, goes_on))
        return cells
