"""Word documents: each run, paragraph, number and table as people see it."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.word import read_word
from tests.corpus.readers.office import paragraph as p
from tests.corpus.readers.office import run, word

DELETED = '<w:del w:id="1"><w:r><w:delText> old</w:delText></w:r></w:del>'
SUPER, SUB = '<w:vertAlign w:val="superscript"/>', '<w:vertAlign w:val="subscript"/>'


def text(body: str, **parts: str) -> str:
    return read_word(word(body, parts)).text


def style(name: str, kind: str, inner: str, based_on: str = "") -> str:
    base = f'<w:basedOn w:val="{based_on}"/>' if based_on else ""
    return f'<w:style w:type="{kind}" w:styleId="{name}"><w:name w:val="{name}"/>{base}{inner}</w:style>'


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (("10", run("6", SUPER), " units"), "10^6 units"),
        (("in 1984", run("3", SUPER), "."), "in 1984^3."),
        (("x", run("n+1", SUPER)), "x^(n+1)"),
        (("x", run("2", SUB), "3"), "x_(2)3"),
        (("10", run("1", SUPER), run("2", SUPER), " m"), "10^12 m"),
        (("H", run("2", SUB), "O and the 1", run("st", SUPER)), "H2O and the 1st"),
        (("3", run("1", SUPER), "/", run("2", SUB), " miles"), "3 1/2 miles"),
        (("ACME", run("TM", SUPER)), "ACME™"),
        (("10", run("6", '<w:position w:val="6"/>')), "10^6"),
        ((run("900", "<w:strike/>"), "750"), "~~900~~ 750"),
        ((run("900", "<w:dstrike/>"), "750"), "~~900~~ 750"),
        ((run("900", '<w:strike w:val="0"/>'), " crowns"), "900 crowns"),
        ((run("old ", "<w:strike/>"), "new"), "~~old~~ new"),
        (("a", '<w:r><w:tab/></w:r>', "b", '<w:r><w:ptab w:relativeTo="margin"/></w:r>', "c"), "a\tb\tc"),
        (("pre", "<w:r><w:noBreakHyphen/></w:r>", "paid", "<w:r><w:softHyphen/></w:r>", "s"), "pre-paids"),
        (("a", "<w:r><w:br/></w:r>", "b", "<w:r><w:cr/></w:r>", "c"), "a\nb\nc"),
        (('<w:r><w:sym w:font="Symbol" w:char="F057"/></w:r>',), "Ω"),
        (('<w:r><w:sym w:font="Wingdings" w:char="F0FC"/></w:r>', " done"), "✓ done"),
        (('<w:r><w:sym w:font="Unheard Of" w:char="F0FC"/></w:r>', " x"), "\ufffd x"),
        (('<w:r><w:sym w:font="Symbol" w:char="nonsense"/></w:r>', " x"), "\ufffd x"),
        ((run("ab", '<w:rFonts w:ascii="Symbol"/>'),), "αβ"),
        (("see", '<w:ins w:id="1"><w:r><w:t> new</w:t></w:r></w:ins>', DELETED), "see new"),
        (("<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>",), "link"),
        (("<w:sdt><w:sdtContent>" + run("inside") + "</w:sdtContent></w:sdt>",), "inside"),
        (('<w:fldSimple w:instr=" DATE ">' + run("today") + "</w:fldSimple>",), "today"),
        ((f"<w:r><w:ruby><w:rt>{run('kan')}</w:rt><w:rubyBase>{run('漢')}</w:rubyBase></w:ruby></w:r>",), "漢(kan)"),
        (("one\nline",), "one line"),
        (("a ", run("secret ", "<w:vanish/>"), "b"), "a b"),
    ],
)  # fmt: skip
def test_runs(runs: tuple[str, ...], expected: str) -> None:
    assert text(p(*runs)) == expected


def test_what_styles_hide_strike_or_raise() -> None:
    styles = (
        style("Hidden", "character", "<w:rPr><w:vanish/></w:rPr>")
        + style("Deep", "character", "", based_on="Hidden")
        + style("Gone", "paragraph", "<w:rPr><w:vanish/></w:rPr>")
        + style("Old", "character", "<w:rPr><w:strike/></w:rPr>")
        + style("Mark", "character", f"<w:rPr>{SUPER}</w:rPr>")
    )
    hidden, shown = '<w:rStyle w:val="Deep"/>', '<w:rStyle w:val="Deep"/><w:vanish w:val="0"/>'
    body = p("seen ", run("SECRET", hidden), run("shown", shown))
    body += p("SECRET", properties='<w:pStyle w:val="Gone"/>')
    body += p(run("900", '<w:rStyle w:val="Old"/>'), "750", run("2", '<w:rStyle w:val="Mark"/>'))
    assert text(body, styles=styles) == "seen shown\n\n~~900~~ 750^2"


def test_fields_show_their_result_and_never_their_code() -> None:
    def char(kind: str, inner: str = "") -> str:
        return f'<w:r><w:fldChar w:fldCharType="{kind}">{inner}</w:fldChar></w:r>'

    code = "<w:r><w:instrText> REF x </w:instrText></w:r>"
    nested = char("begin") + code + char("separate") + run("inner") + char("end")
    whole = char("begin") + code + nested + char("separate") + run("result") + char("end")
    ticked = char("begin", "<w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData>") + code + char("end")
    choice = '<w:result w:val="1"/><w:listEntry w:val="no"/><w:listEntry w:val="yes"/>'
    choice = f"<w:ffData><w:ddList>{choice}</w:ddList></w:ffData>"
    symbol = char("begin") + '<w:r><w:instrText> SYMBOL 87 \\f "Symbol" \\s 10 </w:instrText></w:r>' + char("end")
    body = p("see ", whole) + p(ticked, " paid") + p(char("begin", choice) + char("end")) + p(symbol)
    # A field that is never closed hides nothing of the paragraphs after it.
    body += p("before", char("begin"), code) + p("after")
    assert text(body) == "see result\n\n☒ paid\n\nyes\n\nΩ\n\nbefore\n\nafter"


def test_moved_text_is_read_once_and_deleted_ends_join_paragraphs() -> None:
    moved = '<w:moveFrom w:id="1">' + run("moved words") + "</w:moveFrom>"
    body = p(moved, properties="<w:rPr><w:moveFrom w:id='2'/></w:rPr>") + p("stays")
    body += p('<w:moveTo w:id="3">' + run("moved words") + "</w:moveTo>")
    body += p("one ", properties="<w:rPr><w:del w:id='4'/></w:rPr>") + p("line")
    cells = "<w:tc>" + p("gone") + "</w:tc><w:tc>" + p("gone") + "</w:tc>"
    deleted = f'<w:tr><w:trPr><w:del w:id="5"/></w:trPr>{cells}</w:tr>'
    kept = "<w:tr><w:tc>" + p("kept") + "</w:tc><w:tc>" + p(moved, "5") + "</w:tc></w:tr>"
    assert text(body + f"<w:tbl>{deleted}{kept}</w:tbl>") == "stays\n\nmoved words\n\none line\n\nkept\t5"


def level(at: int, form: str, words: str, more: str = "", start: int = 1) -> str:
    inner = f'<w:start w:val="{start}"/><w:numFmt w:val="{form}"/>{more}<w:lvlText w:val="{words}"/>'
    return f'<w:lvl w:ilvl="{at}">{inner}</w:lvl>'


LEVELS = (
    level(0, "decimal", "§ %1", '<w:pStyle w:val="Clause"/>')
    + level(1, "lowerLetter", "%1.%2)")
    + level(2, "upperRoman", "%1.%2.%3", "<w:isLgl/>", start=3)
    + level(3, "decimal", "(%4)", '<w:lvlRestart w:val="0"/>')
)
NUMBERING = (
    f'<w:abstractNum w:abstractNumId="0">{LEVELS}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="1">{level(0, "bullet", "&#xf0b7;")}</w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="0"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>'
)


def test_a_deleted_end_of_a_paragraph_does_not_join_cells() -> None:
    mark = "<w:rPr><w:del w:id='1'/></w:rPr>"
    cells = "<w:tc>" + p("120", properties=mark) + "</w:tc><w:tc>" + p("3") + "</w:tc>"
    body = p("Before", properties=mark) + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    assert text(body) == "Before\n\n120\t3"


def numbered(words: str, depth: int, num: int = 1, more: str = "") -> str:
    return p(words, properties=f'{more}<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{num}"/></w:numPr>')


def test_automatic_numbers() -> None:
    body = numbered("A", 0) + numbered("B", 1) + numbered("C", 1) + numbered("D", 2) + numbered("E", 3)
    body += numbered("F", 0) + numbered("G", 1) + numbered("H", 3) + numbered("I", 0, 3) + numbered("J", 0, 2)
    body += numbered("K", 0, 0) + numbered("L", 0)
    lines = text(body, numbering=NUMBERING).split("\n")
    assert lines[:10] == ["§ 1 A", "1.a) B", "1.b) C", "1.2.3 D", "(1) E", "§ 2 F", "2.a) G", "(2) H", "§ 7 I", "- J"]
    assert lines[-3:] == ["K", "", "§ 8 L"]


def test_numbers_of_styles_and_of_headings() -> None:
    number = '<w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr>'
    styles = style("Clause", "paragraph", number) + style("Sub", "paragraph", "", based_on="Clause")
    styles += style("heading 1", "paragraph", number)
    body = "".join(p(name, properties=f'<w:pStyle w:val="{name}"/>') for name in ("Clause", "Sub", "heading 1"))
    found = read_word(word(body, {"styles": styles, "numbering": NUMBERING}))
    assert found.text == "§ 1 Clause\n§ 2 Sub\n\n§ 3 heading 1" and found.headings == [(1, "§ 3 heading 1")]


def test_hidden_and_deleted_paragraphs_are_not_counted() -> None:
    body = numbered("A", 0) + numbered("", 0, more="<w:rPr><w:vanish/></w:rPr>")
    gone = '<w:del w:id="1"><w:r><w:delText>old</w:delText></w:r></w:del>'
    mark = '<w:rPr><w:del w:id="2"/></w:rPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>'
    assert text(body + p(gone, properties=mark) + numbered("B", 0), numbering=NUMBERING) == "§ 1 A\n§ 2 B"


def test_tables() -> None:
    def cell(inner: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{inner}</w:tc>"

    def row(*cells: str) -> str:
        return f"<w:tr>{''.join(cells)}</w:tr>"

    begins, goes_on, wide = '<w:vMerge w:val="restart"/>', "<w:vMerge/>", '<w:gridSpan w:val="2"/>'
    inner = f"<w:tbl>{row(cell(p('net 12')), cell(p('gross 15')))}</w:tbl>{p()}"
    table = row(cell(p("Fees"), wide), cell(p("2025"))) + row(cell(p("Lund"), begins), cell(p("120")), cell(p("3")))
    table += row(cell(p(), goes_on), cell(p("130") + p("net")), cell(inner)) + row(
        cell(p("Vik")), cell(p()), cell(p("5"))
    )
    table += f"<w:sdt><w:sdtContent>{row(cell(p('Oslo')), cell(p('140')), cell(p('2')))}</w:sdtContent></w:sdt>"
    assert text(f"<w:tbl>{table}</w:tbl>").split("\n") == [
        "Fees\t\t2025", "Lund\t120\t3", "Lund\t130 net\tnet 12 gross 15", "Vik\t\t5", "Oslo\t140\t2",
    ]  # fmt: skip
    heading = p("One", properties='<w:pStyle w:val="Heading1"/>')
    layout = f"<w:tbl>{row(cell(heading + p('Two')))}</w:tbl>"
    found = read_word(word(layout))
    assert found.text == "One\n\nTwo" and found.headings == [(1, "One")]


def test_notes_stand_behind_their_paragraph() -> None:
    def note(kind: str, words: str) -> str:
        return f'<w:{kind} w:id="2"><w:p><w:r><w:{kind}Ref/></w:r>{run(" " + words)}</w:p></w:{kind}>'

    references = [f'<w:r><w:{kind}Reference w:id="2"/></w:r>' for kind in ("footnote", "endnote")]
    body = p("two days", references[0], ". 19", references[1])
    found = text(body + p("Next."), footnotes=note("footnote", "holidays"), endnotes=note("endnote", "tariff"))
    assert found == "two days[^1]. 19[^e1]\n\n[^1]: holidays\n\n[^e1]: tariff\n\nNext."


def test_headers_and_footers_once_and_comments_not_at_all() -> None:
    def section(*references: str, more: str = "") -> str:
        return f"<w:sectPr>{''.join(references)}{more}</w:sectPr>"

    header, footer = '<w:headerReference w:type="default" r:id="header1"/>', '<w:footerReference r:id="footer1"/>'
    first = '<w:headerReference w:type="first" r:id="header2"/>'
    page = '<w:fldSimple w:instr="PAGE">' + run("3") + "</w:fldSimple>"
    body = p("Words.", properties=section(header, first)) + p("More.") + section(header, footer)
    parts = {"header1": p("File REF-40917"), "header2": p("not shown"), "footer1": p("Page ", page) + p("VAT 118822")}
    parts["comments"] = f'<w:comment w:id="0">{p("void")}</w:comment>'
    assert text(body, **parts) == "File REF-40917\n\nWords.\n\nMore.\n\nVAT 118822"


def test_text_boxes_charts_and_diagrams() -> None:
    box = "<w:txbxContent>" + p("Boxed.") + "</w:txbxContent>"
    twice = f"<mc:AlternateContent><mc:Choice Requires='wps'><w:drawing>{box}</w:drawing></mc:Choice>"
    twice += f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent>"
    body = p("Before", f"<w:r>{twice}</w:r>", " after.")
    body += p('<w:r><w:drawing><c:chart r:id="chart1"/></w:drawing></w:r>')
    body += p('<w:r><w:drawing><dgm:relIds r:dm="data1"/></w:drawing></w:r>')
    points = "<c:pt idx='0'><c:v>{1}</c:v></c:pt><c:pt idx='1'><c:v>{2}</c:v></c:pt>"
    points = f"<c:{{0}}><c:strCache>{points}</c:strCache></c:{{0}}>"
    series = "<c:tx><c:strCache><c:pt idx='0'><c:v>Fee</c:v></c:pt></c:strCache></c:tx>"
    series = f"<c:ser>{series}{points.format('cat', 'Lund', 'Vik')}{points.format('val', 120, 90)}</c:ser>"
    title = "<c:title><c:tx><c:rich><a:p><a:r><a:t>Fees</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    diagram = "<dgm:ptLst><dgm:pt><dgm:t><a:p><a:r><a:t>Load</a:t></a:r></a:p></dgm:t></dgm:pt>"
    diagram += "<dgm:pt><dgm:t><a:p><a:r><a:t>Sail</a:t></a:r></a:p></dgm:t></dgm:pt></dgm:ptLst>"
    found = text(body, chart1=title + series, data1=diagram)
    assert found == "Before after.\n\nBoxed.\n\nFees\n\n\tFee\nLund\t120\nVik\t90\n\nLoad\nSail"


def test_formulas() -> None:
    def m(words: str) -> str:
        return f"<m:r><m:t>{words}</m:t></m:r>"

    power = f"<m:sSup><m:e>{m('x')}</m:e><m:sup>{m('2')}</m:sup></m:sSup>"
    part = f"<m:f><m:num>{power}</m:num><m:den>{m('3')}</m:den></m:f>"
    assert text(p(f"<m:oMath>{power}</m:oMath>", " is, ", f"<m:oMath>{part}</m:oMath>")) == "x^{2} is, \\frac{x^{2}}{3}"


def test_a_page_that_the_document_takes_in_is_read() -> None:
    page = "<html><body><p>From a page: 10<sup>6</sup>.</p></body></html>"
    body = p("Before.") + '<w:altChunk r:id="aFChunk1"/>' + p("After.")
    assert text(body, aFChunk1=page) == "Before.\n\nFrom a page: 10^6.\n\nAfter."


def test_a_damaged_part_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_word(word(p("words")).replace(b"word/document.xml", b"word/document.xmX"))
    assert refused.value.reason == "unreadable"
