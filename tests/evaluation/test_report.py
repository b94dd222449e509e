"""The report: a complete page that needs no other files, and shows its input as text."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from lxml import etree

from memorag_pipeline.evaluation.adapter import Evaluation, MemoryRow, NeedleRow, RecallRow
from memorag_pipeline.evaluation.gap import Gap
from memorag_pipeline.evaluation.needles import NeedleCell
from memorag_pipeline.evaluation.recall_quality import RecallAt, RecallQuality
from memorag_pipeline.evaluation.report import CurvePoint, write_report

EVIL = "<script>alert('$x$ & y')</script>"
VOID = {"meta", "br", "hr", "img", "link", "input"}
CURVE = [CurvePoint(0, 3.25), CurvePoint(1000, 3.0, 0.2), CurvePoint(2000, 2.75, 0.4)]


def example() -> Evaluation:
    def cells(gap_closed: float | None) -> tuple[NeedleCell, ...]:
        return tuple(
            NeedleCell(tokens, depth, 4, 9.0, 5.0, 1.0, gap_closed, 0.75)
            for tokens in (1024, 2048)
            for depth in (0.1, 0.9)
        )

    memories = tuple(
        MemoryRow(memory, ratio, 2.5, Gap(0.5 + ratio / 100, None if ratio == 2 else 0.03, (0.7, 0.5, 0.4, 0.3)))
        for memory in ("beacon", "recent", "attention")
        for ratio in (2, 4, 8)
    )
    recall = RecallQuality("xquad_en", 20, 3, 2.5, 0.45, (RecallAt(1, 0.5, 0.5), RecallAt(3, 0.6, 0.7)))
    return Evaluation(
        model="tiny",
        adapter="adapter.safetensors",
        adapter_digest="abc",
        window=256,
        sink=1,
        dtype="float32",
        texts=40,
        tokens=1024,
        asked=256,
        positions=("1-63", "64-127", "128-191", "192-255"),
        nothing=2.919,
        all=2.265,
        memories=memories,
        candidates=8,
        needles=(
            NeedleRow("beacon", 4, cells(None)),
            NeedleRow("attention", 4, cells(0.5)),
            NeedleRow("all", 0, cells(1.0)),
        ),
        recall=(RecallRow("beacon", 4, recall),),
    )


class Page(HTMLParser):
    """Elements of a page, and its text; every element that is opened must be closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    evaluation = replace(
        example(), adapter=EVIL, memories=(*example().memories, MemoryRow(EVIL, 4, 1.0, Gap(1, 0, (1.0,) * 4)))
    )
    write_report(path, evaluation, CURVE, {"document": EVIL, EVIL: "a fact"}, title=EVIL)
    return path.read_text(encoding="utf-8")


def test_it_is_a_whole_page_with_its_plots(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    assert page.elements.count("svg") == 4
    assert page.elements.count("table") == 3
    assert page.elements.count("title") == 1
    assert {"xquad_en", "the whole stream", "2.919"} <= set(re.findall(r"xquad_en|the whole stream|2\.919", page.text))
    assert "54.0 %" in page.text and "none" in page.text


def test_what_it_is_given_is_text(html: str) -> None:
    page = Page(html)
    assert "script" not in page.elements
    assert "<script" not in html
    assert page.text.count(EVIL) >= 5  # the title twice, the adapter, the facts, and the plots' legends


def test_it_needs_nothing_from_elsewhere(html: str) -> None:
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|<link|data:", html)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))


def test_the_plots_are_well_formed_and_take_the_colours_of_the_page(html: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    for plot in plots:
        etree.fromstring(plot)
        assert "currentColor" in plot and "#010203" not in plot
        assert "viewBox" in plot
    assert "<text" in plots[0]


def test_no_identifier_is_there_twice(html: str) -> None:
    ids = Page(html).ids
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_report(tmp_path / name, example(), CURVE, {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    evaluation = replace(example(), needles=(), recall=(), candidates=0, memories=example().memories[:1])
    write_report(tmp_path / "report.html", evaluation, [], {})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.elements.count("svg") == 2
    assert page.elements.count("h2") == 1


def test_a_curve_without_gaps(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", example(), CURVE[:1], {})
    assert "tokens of training" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_matplotlib_is_only_loaded_to_draw() -> None:
    code = (
        "import sys, memorag_pipeline.evaluation.report; sys.exit(bool({'matplotlib', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
