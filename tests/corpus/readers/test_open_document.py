"""OpenDocument files: texts, spreadsheets and presentations as people see them."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.open_document import read_open_sheets, read_open_slides, read_open_text
from tests.corpus.documents import package
from tests.corpus.readers.open import document, embedded, p, span, style

STYLES = (
    style("Up", 'style:text-position="super 58%"')
    + style("Down", 'style:text-position="-33% 58%"')
    + style("Gone", 'text:display="none"')
    + style("Struck", 'style:text-line-through-style="solid"')
    + style("Inherits", "", parent="Struck")
    + style("Unstruck", 'style:text-line-through-style="none"', parent="Struck")
    + style("GoneP", 'text:display="none"', family="paragraph")
)


def text(body: str, **parts: str) -> str:
    return read_open_text(document(body, automatic=STYLES, **parts)).text


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("10" + span("6", "Up") + " units, H" + span("2", "Down") + "O", "10^6 units, H2O"),
        (span("900", "Struck") + "750" + span("1", "Inherits") + span("2", "Unstruck"), "~~900~~ 750~~1~~2"),
        ("seen " + span("SECRET", "Gone") + "too", "seen too"),
        ("a<text:tab/>b<text:s text:c='3'/>c<text:line-break/>d", "a\tb   c\nd"),
        ("one\n   line   of <text:span> words</text:span>", "one line of words"),
        ("a<text:soft-page-break/>b<text:bookmark text:name='x'/>c", "abc"),
        ("see <text:a xlink:href='http://x.invalid'>the link</text:a>", "see the link"),
        ("a<office:annotation><text:p>SECRET</text:p></office:annotation>b", "ab"),
        ("<text:hidden-text text:is-hidden='true'>SECRET</text:hidden-text>seen", "seen"),
        ("<text:ruby><text:ruby-base>漢</text:ruby-base><text:ruby-text>kan</text:ruby-text></text:ruby>", "漢(kan)"),
        ("<text:date>1 May</text:date>", "1 May"),
    ],
)
def test_runs(inner: str, expected: str) -> None:
    assert text(p(inner)) == expected


def test_hidden_and_deleted_text_is_not_read() -> None:
    deleted = "<text:changed-region><text:deletion>" + p("SECRET") + "</text:deletion></text:changed-region>"
    body = f"<text:tracked-changes>{deleted}</text:tracked-changes>" + p("SECRET", "GoneP")
    body += p("<text:hidden-paragraph text:is-hidden='true'/>SECRET")
    body += "<text:section text:display='none'>" + p("SECRET") + "</text:section>"
    body += "<text:section>" + p("a <text:change-start/>seen<text:change-end/>") + "</text:section>"
    assert text(body) == "a seen"


def level(at: int, attributes: str, kind: str = "list-level-style-number") -> str:
    return f'<text:{kind} text:level="{at}" {attributes}/>'


LISTS = (
    '<text:list-style style:name="L">'
    + level(1, 'style:num-format="1" style:num-prefix="§ "')
    + level(2, 'style:num-format="a" style:num-suffix=")" text:display-levels="2"')
    + '</text:list-style><text:list-style style:name="B">'
    + level(1, "", "list-level-style-bullet")
    + level(2, "", "list-level-style-bullet")
    + '</text:list-style><text:list-style style:name="N">'
    + level(1, 'style:num-format="I" loext:num-list-format="(%1%)" text:start-value="3"')
    + "</text:list-style>"
)


def items(*inner: str, attributes: str = 'text:style-name="L"') -> str:
    made = (each if each.startswith("<text:list-") else f"<text:list-item>{each}</text:list-item>" for each in inner)
    return f"<text:list {attributes}>{''.join(made)}</text:list>"


def test_numbers_of_lists() -> None:
    body = items(p("A"), p("B") + p("more") + items(p("C"), p("D"), attributes=""), p("E"))
    body += items(p("F"), attributes='text:style-name="L" text:continue-numbering="true" xml:id="x"')
    body += items(p("G"), '<text:list-item text:start-value="7">' + p("H") + "</text:list-item>")
    body += items(p("I"), attributes='text:style-name="L" text:continue-list="x"')
    body += items(p("J") + items(p("K"), attributes=""), attributes='text:style-name="B"')
    body += items(p("L"), "<text:list-header>" + p("M") + "</text:list-header>", attributes='text:style-name="N"')
    lines = read_open_text(document(body, automatic=LISTS)).text.split("\n")
    assert lines == [
        "§ 1 A",
        "§ 2 B",
        "more",
        "2.a) C",
        "2.b) D",
        "§ 3 E",
        "§ 4 F",
        "§ 1 G",
        "§ 7 H",
        "§ 5 I",
        "- J",
        "  - K",
        "(III) L",
        "M",
    ]


def test_headings_with_their_numbers() -> None:
    outline = level(1, 'style:num-format="1" style:num-suffix="."', "outline-level-style")
    outline += level(2, 'style:num-format="1" text:display-levels="2"', "outline-level-style")
    heads = "".join(
        f'<text:h text:outline-level="{at}">{words}</text:h>' for at, words in ((1, "A"), (2, "B"), (1, "C"))
    )
    found = read_open_text(document(heads, styles=f"<text:outline-style>{outline}</text:outline-style>"))
    assert found.headings == [(1, "1. A"), (2, "1.1 B"), (1, "2. C")] and found.title == "The title"


def test_notes_boxes_margins_and_formulas() -> None:
    body = "<text:note-citation>9</text:note-citation><text:note-body>{}</text:note-body>"
    note = f"<text:note text:note-class='{{}}'>{body}</text:note>"
    box = (
        "<draw:frame><draw:text-box>"
        + p("Boxed.")
        + "</draw:text-box><svg:title xmlns:svg='s'>no</svg:title></draw:frame>"
    )
    formula = "<draw:frame><draw:object xlink:href='./Object 1'/></draw:frame>"
    body = p("two days" + note.format("footnote", p("holidays")) + "." + note.format("endnote", p("tariff")))
    body += p(f"is {formula}, {box}here")
    page = (
        "<style:header>"
        + p("File REF-40917")
        + "</style:header><style:footer>"
        + p("Page <text:page-number>3</text:page-number>")
    )
    masters = f"<style:master-page>{page}</style:footer></style:master-page>" * 2
    math = "<mi>x</mi><annotation encoding='StarMath 5.0'>x^2 over 3</annotation>"
    math = f"<math xmlns='m'><semantics>{math}</semantics></math>"
    found = read_open_text(document(body, masters=masters, **{"Object 1": math})).text
    assert (
        found
        == "File REF-40917\n\ntwo days[^1].[^e1]\n\n[^1]: holidays\n\n[^e1]: tariff\n\nis x^2 over 3, here\n\nBoxed."
    )


def test_tables() -> None:
    def row(*cells: str) -> str:
        return f"<table:table-row>{''.join(cells)}</table:table-row>"

    def cell(inner: str, attributes: str = "") -> str:
        return f"<table:table-cell {attributes}>{inner}</table:table-cell>"

    covered = "<table:covered-table-cell/>"
    rows = "<table:table-header-rows>" + row(
        cell(p("Port"), "table:number-columns-spanned='2'"), covered, cell(p("Fee"))
    )
    rows += "</table:table-header-rows>" + row(
        cell(p("Lund"), "table:number-rows-spanned='2'"), cell(p("120")), cell(p("3"))
    )
    rows += row(covered, cell(p("130")), cell(p("4")))
    assert text(f"<table:table>{rows}</table:table>") == "Port\t\tFee\nLund\t120\t3\nLund\t130\t4"


def sheet(rows: str, name: str = "Fees", more: str = "") -> str:
    return f'<table:table table:name="{name}" {more}>{rows}</table:table>'


def row(*cells: str, attributes: str = "") -> str:
    return f"<table:table-row {attributes}>{''.join(cells)}</table:table-row>"


def shown(inner: str, attributes: str = "") -> str:
    return f"<table:table-cell {attributes}>{inner and p(inner)}</table:table-cell>"


def test_sheets_are_read_as_they_are_shown() -> None:
    automatic = style("Hidden", '<style:table-properties table:display="false"/>', family="table") + STYLES
    automatic += style("Old", 'style:text-line-through-style="solid"', family="table-cell")
    columns = "<table:table-column table:number-columns-repeated='3'/><table:table-column table:visibility='collapse'/>"
    rows = row(shown("Port"), shown("Fee"), shown("Days"), shown("SECRET"))
    rows += row(shown("Lund", "table:number-rows-spanned='2'"), shown("25%", "office:value='0.25'"), shown("3"))
    rows += row("<table:covered-table-cell/>", shown("12:00", "office:value='0.5'"), shown("4"))
    rows += row(shown("SECRET"), attributes="table:visibility='filter'")
    rows += "<table:table-row-group table:display='false'>" + row(shown("SECRET")) + "</table:table-row-group>"
    rows += row(
        shown("900", "table:style-name='Old'"), shown("", "office:value='7'"), shown("", "table:formula='of:=[.A1]*2'")
    )
    rows += row(shown("x", "table:number-columns-repeated='2'"), attributes="table:number-rows-repeated='2'")
    rows += row(shown("", "table:number-columns-repeated='16384'"), attributes="table:number-rows-repeated='1048000'")
    body = sheet(columns + rows) + sheet(row(shown("SECRET")), "Gone", 'table:style-name="Hidden"')
    body += sheet(row(shown("last")), "Sheet2")
    found = read_open_sheets(document(body, "spreadsheet", automatic))
    assert found.text.split("\n") == [
        "Fees", "", "Port Fee Days", "Lund 25% 3", "Lund 12:00\t4", "~~900~~ 7 =[.A1]*2", "x x", "x x", "", "last",
    ]  # fmt: skip
    assert found.headings == [(2, "Fees")]


def test_slides() -> None:
    hidden = '<style:drawing-page-properties presentation:visibility="hidden"/>'
    automatic = style("Gone", hidden, family="drawing-page")

    def frame(inner: str, role: str = "") -> str:
        kind = f'presentation:class="{role}"' if role else ""
        return f"<draw:frame {kind}><draw:text-box>{inner}</draw:text-box></draw:frame>"

    notes = "<presentation:notes><draw:page-thumbnail/>" + frame(p("Mention it"), "notes") + "</presentation:notes>"
    group = f"<draw:g>{frame(p('Grouped'))}<draw:custom-shape>{p('Shape')}</draw:custom-shape></draw:g>"
    first = frame(p("Body"), "outline") + frame(p("The slide"), "title") + group + frame(p("3"), "page-number") + notes
    table = sheet(row(shown("North"), shown("7 m")))
    body = f"<draw:page>{first}</draw:page><draw:page draw:style-name='Gone'>{frame(p('SECRET'))}</draw:page>"
    body += f"<draw:page><draw:frame>{table}</draw:frame></draw:page>"
    found = read_open_slides(document(body, "presentation", automatic))
    assert found.text == "The slide\n\nBody\n\nGrouped\n\nShape\n\nNotes: Mention it\n\nNorth\t7 m"
    assert found.headings == [(1, "The slide")]


def test_a_chart_in_a_text_is_read_as_its_values() -> None:
    chart = "<office:chart><chart:chart><chart:title>" + p("Fees") + "</chart:title>"
    chart += sheet(row(shown("Lund"), shown("120")), "local-table") + "</chart:chart></office:chart>"
    body = p("<draw:frame><draw:object xlink:href='./Object 1'/></draw:frame>")
    assert text(body, **{"Object 1": embedded(chart)}) == "Fees\n\nLund\t120"


def test_a_package_without_content_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_open_text(package({"mimetype": "application/vnd.oasis.opendocument.text"}))
    assert refused.value.reason == "unreadable"
