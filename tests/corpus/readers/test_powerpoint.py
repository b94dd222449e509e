"""Presentations: the slides that are shown, in the order of the talk."""

from __future__ import annotations

from memorag_pipeline.corpus.readers.powerpoint import read_powerpoint
from tests.corpus.readers.office import element, presentation, shape


def text(shapes: str) -> str:
    return read_powerpoint(presentation({"s1": shapes}, {}, ["s1"])).text


def test_slides_come_in_the_order_of_the_talk_and_hidden_ones_not_at_all() -> None:
    slides = {f"slide{at}": shape(f"Body {at}") for at in (1, 2, 3, 11)}
    slides |= {"slide4-hidden": shape("SECRET")}
    found = read_powerpoint(presentation(slides, {}, ["slide1", "slide11", "slide4-hidden", "slide3", "slide2"]))
    assert found.text == "Body 1\n\nBody 11\n\nBody 3\n\nBody 2"


def test_titles_come_first_and_are_headings() -> None:
    slides = {
        "s1": shape("Text") + shape("The title", placeholder="title"),
        "s2": shape("Next", placeholder="ctrTitle"),
    }
    found = read_powerpoint(presentation(slides, {}, ["s1", "s2"]))
    assert found.text == "The title\n\nText\n\nNext" and found.headings == [(1, "The title"), (1, "Next")]


def test_notes_groups_and_furniture() -> None:
    notes = shape("Mention the delay", placeholder="body") + shape("3", placeholder="sldNum")
    notes = element("p:notes", f"<p:cSld><p:spTree>{notes}</p:spTree></p:cSld>")
    group = f"<p:grpSp><p:nvGrpSpPr><p:cNvPr name='g'/></p:nvGrpSpPr>{shape('Grouped')}</p:grpSp>"
    furniture = shape("3", placeholder="sldNum") + shape("1 May", placeholder="dt") + shape("SECRET", hidden=True)
    slides = {name: f"{group}{furniture}{shape('ACME, internal', placeholder='ftr')}" for name in ("s1", "s2")}
    parts = {"s1": {"n": ("notesSlide", "notesSlides/n1.xml", notes)}}
    found = read_powerpoint(presentation(slides, parts, ["s1", "s2"])).text
    assert found == "Grouped\n\nNotes: Mention the delay\n\nGrouped\n\nACME, internal"


def test_runs_of_slides() -> None:
    def run(words: str, properties: str = "") -> str:
        return f"<a:r><a:rPr {properties}/><a:t>{words}</a:t></a:r>"

    raised = run("10") + run("6", "baseline='30000'") + "<a:br/>" + run("H") + run("2", "baseline='-25000'") + run("O")
    struck = run("900", "strike='sngStrike'") + run("750", "strike='noStrike'")
    struck += "<a:fld type='slidenum'><a:t>3</a:t></a:fld>"
    assert text(shape(f"<a:p>{raised}</a:p>", f"<a:p>{struck}</a:p>")) == "10^6\nH2O\n~~900~~ 750"


def test_automatic_numbers_of_slides() -> None:
    def numbered(words: str, kind: str, level: int = 0, start: str = "") -> str:
        automatic = f'<a:buAutoNum type="{kind}" {start}/>'
        return f'<a:p><a:pPr lvl="{level}">{automatic}</a:pPr><a:r><a:t>{words}</a:t></a:r></a:p>'

    lines = [numbered("A", "arabicPeriod"), numbered("B", "alphaLcParenR", 1), numbered("C", "alphaLcParenR", 1)]
    lines += [numbered("D", "arabicPeriod"), numbered("E", "alphaLcParenR", 1), "plain"]
    lines += [numbered("F", "romanUcParenBoth")]
    lines += [numbered("G", "arabicPlain", start='startAt="5"')]
    assert text(shape(*lines)).split("\n") == ["1. A", "a) B", "b) C", "2. D", "a) E", "plain", "(I) F", "5 G"]


def test_tables_charts_and_diagrams() -> None:
    def cell(words: str, attributes: str = "") -> str:
        return f"<a:tc {attributes}><a:txBody><a:p><a:r><a:t>{words}</a:t></a:r></a:p></a:txBody></a:tc>"

    rows = "<a:tr>" + cell("Fees", 'gridSpan="2"') + cell("", 'hMerge="1"') + cell("2025") + "</a:tr>"
    rows += "<a:tr>" + cell("Lund", 'rowSpan="2"') + cell("120") + cell("3") + "</a:tr>"
    rows += "<a:tr>" + cell("", 'vMerge="1"') + cell("130") + cell("4") + "</a:tr>"
    frame = "<p:graphicFrame><a:graphic><a:graphicData>{}</a:graphicData></a:graphic></p:graphicFrame>"
    shapes = (
        frame.format(f"<a:tbl>{rows}</a:tbl>")
        + frame.format('<c:chart r:id="c"/>')
        + frame.format('<dgm:relIds r:dm="d"/>')
    )
    point = "<c:val><c:numCache><c:pt idx='0'><c:v>120</c:v></c:pt></c:numCache></c:val>"
    named = "<c:tx><c:strCache><c:pt idx='0'><c:v>Fee</c:v></c:pt></c:strCache></c:tx>"
    chart = element("c:chartSpace", f"<c:ser>{named}{point}</c:ser>")
    node = "<dgm:pt><dgm:t><a:p><a:r><a:t>Load</a:t></a:r></a:p></dgm:t></dgm:pt>"
    own = {"c": ("chart", "charts/1.xml", chart), "d": ("diagramData", "d/1.xml", element("dgm:dataModel", node))}
    found = read_powerpoint(presentation({"s1": shapes}, {"s1": own}, ["s1"])).text
    assert found == "Fees\t\t2025\nLund\t120\t3\nLund\t130\t4\n\nFee\n120\n\nLoad"


def test_what_is_drawn_in_two_ways_is_read_once() -> None:
    ways = f"<mc:Choice Requires='x'>{shape('new way')}</mc:Choice><mc:Fallback>{shape('old way')}</mc:Fallback>"
    assert text(f"<mc:AlternateContent>{ways}</mc:AlternateContent>") == "new way"
