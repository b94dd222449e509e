"""Text in DrawingML, the drawings of Office: bodies of text, tables, charts, diagrams.

In:  elements of a slide or of a drawing in a document.
Out: paragraphs and rows as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memorag_pipeline.corpus.readers.math import formula
from memorag_pipeline.corpus.readers.numerals import numeral
from memorag_pipeline.corpus.readers.package import (
    LOCAL,
    Element,
    Package,
    attribute,
    child,
    chosen,
    related,
    value,
)
from memorag_pipeline.corpus.readers.runs import Run, plain
from memorag_pipeline.corpus.readers.symbols import seen
from memorag_pipeline.corpus.readers.word_styles import number

_NUMBERS = (  # of `a:buAutoNum`, by beginning and end of the name
    ("alphaLc", "lowerLetter"), ("alphaUc", "upperLetter"), ("romanLc", "lowerRoman"), ("romanUc", "upperRoman"),
    ("circleNum", "decimalEnclosedCircle"), ("ea1", "chineseCounting"),
)  # fmt: skip
_ENDS = (("ParenBoth", "({})"), ("ParenR", "{})"), ("Period", "{}."), ("Minus", "- {} -"))


def paragraphs(body: Element) -> Iterator[str]:
    """The paragraphs of a body of text (`p:txBody`), with their automatic numbers."""
    counts: dict[int, tuple[str, int]] = {}
    for element in body.iterchildren("{*}p"):
        text = plain(list(_runs(element))).strip()
        properties = child(element, "pPr")
        depth = (number(attribute(properties, "lvl")) or 0) if properties is not None else 0
        counts = {level: count for level, count in counts.items() if level <= depth}
        automatic = child(properties, "buAutoNum")
        if not text:
            continue
        if automatic is None:
            counts.pop(depth, None)
            yield text
            continue
        form = attribute(automatic, "type") or "arabicPeriod"
        start = number(attribute(automatic, "startAt")) or 1
        before = counts.get(depth)
        count = before[1] + 1 if before is not None and before[0] == f"{form}{start}" else start
        counts[depth] = (f"{form}{start}", count)
        yield f"{_numbered(count, form)} {text}"


def _numbered(count: int, form: str) -> str:
    words = numeral(count, next((name for begins, name in _NUMBERS if form.startswith(begins)), "decimal"))
    return next((end.format(words) for name, end in _ENDS if form.endswith(name)), words)


def _runs(content: Iterable[Element]) -> Iterator[Run]:
    for element in content:
        name = LOCAL[element.tag]
        if name == "r" or (name == "fld" and attribute(element, "type") != "slidenum"):
            properties = child(element, "rPr")
            shift = number(value(element, "rPr", of="baseline")) or 0
            struck = (value(element, "rPr", of="strike") or "noStrike") != "noStrike"
            font = value(properties, "sym", of="typeface") or value(properties, "latin", of="typeface")
            words = child(element, "t")
            text = "" if words is None else (words.text or "").replace("\v", "\n").replace("_x000B_", "\n")
            yield Run(seen(text, font), (shift > 0) - (shift < 0), struck)
        elif name == "br":
            yield Run("\n")
        elif name in {"m", "oMath", "oMathPara"}:
            yield Run(formula(element))
        elif name == "AlternateContent":
            yield from _runs(chosen(element))


def drawn(package: Package, part: str, element: Element) -> Iterator[str]:
    """The content of a chart (`c:chart`) or a diagram (`dgm:relIds`) that a part refers to."""
    is_chart = LOCAL[element.tag] == "chart"
    target = package.relationships(part).get(related(element, "id" if is_chart else "dm"))
    root = None if target is None else package.tree(target.target)
    if root is not None:
        yield from _chart(root) if is_chart else _diagram(root)


def _chart(root: Element) -> Iterator[str]:
    """Title, axis names, and the values as a table."""
    for title in root.iter("{*}title"):
        if text := " ".join(part for each in title.iter("{*}rich") for part in paragraphs(each)):
            yield text
    columns: list[tuple[str, dict[int, str]]] = []
    for series in root.iter("{*}ser"):
        name = next((_points(each).get(0, "") for each in series.iterchildren("{*}tx")), "")
        for kind in ("cat", "xVal"):
            if (along := child(series, kind)) is not None and ("", _points(along)) not in columns:
                columns.append(("", _points(along)))
        for kind in ("val", "yVal"):
            if (along := child(series, kind)) is not None:
                columns.append((name, _points(along)))
    count = max((max(points, default=-1) + 1 for _, points in columns), default=0)
    rows = ["\t".join(name for name, _ in columns)] if any(name for name, _ in columns) else []
    rows += ["\t".join(points.get(at, "") for _, points in columns) for at in range(min(count, 10_000))]
    if text := "\n".join(row for row in rows if row.strip()):
        yield text


def _points(element: Element) -> dict[int, str]:
    """The values stored with a chart, by position; those of several levels joined."""
    found: dict[int, str] = {}
    for point in element.iter("{*}pt"):
        text = (value_text := child(point, "v")) is not None and value_text.text
        at = number(attribute(point, "idx")) or 0
        found[at] = " ".join(filter(None, (text or "", found.get(at))))
    if not found and (single := child(element, "v")) is not None:
        found[0] = single.text or ""
    return found


def _diagram(root: Element) -> Iterator[str]:
    """The texts of a diagram (SmartArt), in its order."""
    lines = [
        line
        for point in root.iter("{*}pt")
        if attribute(point, "type") in {None, "node", "asst"}
        for body in point.iterchildren("{*}t")
        for line in paragraphs(body)
    ]
    if lines:
        yield "\n".join(lines)
