"""The words of HTML pages and EPUBs: no number becomes another one, nothing is dropped but by a rule."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html import read_html
from tests.corpus.documents import book
from tests.corpus.test_text import read


def text_of(page: str) -> str:
    return read_html(page)[0]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>10<sup>6</sup> m<sup>2</sup>, 10<sup>-3</sup>", "10^6 m^2, 10^-3"),
        ("<p>built in 1984<sup>3</sup>.", "built in 1984^3."),
        ('<p>1984<sup><a href="#n3">3</a></sup>, 5<a href="#n4"><sup>4</sup></a>', "1984[3], 5[4]"),
        ('<p>1984<sup class="reference"><a href="#c">[3]</a></sup>', "1984[3]"),
        ("<p>H<sub>2</sub>O, x<sub>i</sub>, x<sub>1</sub><sup>2</sup>", "H2O, x_i, x_1^2"),
        ("<p>log<sub>2</sub>8, 101<sub>2</sub>", "log_(2)8, 101_2"),
        ("<p>3<sup>1</sup>/<sub>2</sub> miles, <sup>1</sup>&frasl;<sub>2</sub>", "3 1/2 miles, 1/2"),
        ("<p>5<sup>th</sup> street, 2<sup>n+1</sup>, 2<sup>3</sup>4", "5th street, 2^(n+1), 2^(3)4"),
        ("<p><sup>1</sup>See Acme<sup>TM</sup>", "1 See Acme™"),
        ("<p>Pay <s>10</s>8; <strike>never</strike> always", "Pay ~~10~~ 8; ~~never~~ always"),
        ("<p>costs <del>900</del><ins>750</ins> crowns, 5<ins>0</ins>", "costs ~~900~~ 750 crowns, 50"),
        ("<p>1<del>2</del>3", "1~~2~~3"),
        ("<del><p>one</p><ul><li>two</ul></del>", "~~one~~\n\n- ~~two~~"),
        ('<p>2<span style="vertical-align:super">8</span>', "2^8"),
        ('<p><span style="text-decoration: line-through">900</span>750', "~~900~~ 750"),
        ("<style>.x,.c1{color:red;text-decoration:line-through}</style><p class='a c1'>old", "~~old~~"),
        (
            "<math><msup><mi>a</mi><mn>2</mn></msup><mo>=</mo><mfrac><mn>1</mn><mn>2</mn></mfrac></math>",
            "a^{2}=\\frac{1}{2}",
        ),
        ("<math><msqrt><mi>x</mi></msqrt><msub><mi>v</mi><mi>max</mi></msub></math>", "\\sqrt{x}v_{max}"),
        (
            '<math><mi>a</mi><annotation encoding="application/x-tex">{\\displaystyle a^2}</annotation></math>',
            "a^2",
        ),
        ("<pre>10<sup>6</sup>\n  next</pre>", "```\n10^6\n  next\n```"),
        ("<p>a\ufdd0b\ufdd3", "ab"),
    ],
)
def test_marks_within_lines_never_change_a_number(page: str, expected: str) -> None:
    assert text_of(page) == expected


@pytest.mark.parametrize(
    "page",
    [
        "<form method=post><div><h1>Rules</h1><p>Kept words.</p></div></form>",
        "<form><label>Name</label><select><option>Kept<option>words.</select></form>",
        "<form><textarea>Kept words.</textarea><button>Send</button></form>",
        "<header>Kept words.</header><footer>More</footer>",
        "<aside>Kept words.</aside>",
        "<nav><a href=x>Home</a><p>This part of the page tells what the whole is about. Kept words.</p></nav>",
        "<nav><ul><li><a href=x>Kept words.</a></ul></nav>",
        "<nav><ul><li><a href=x>Home</a></ul><h1>Never closed</h1><p>Here are all words of the page. Kept words.</p>",
        "<html><head><title>T</title><body><p>Kept words.<script>s = '</head>'</script><p>End",
        "<!doctype html><title>T</title><meta charset=utf-8><p>Kept words.",
        "<head><title>T</title>Kept words.",
        "<body><p>x</p></body></html><p>Kept words.</p>",
        "<noscript><p>Kept words.</p></noscript>",
        "<details><summary>More</summary>Kept words.</details>",
        "<dialog>Kept words.</dialog>",
        "<object data=x><p>Kept words.</p></object>",
        '<iframe srcdoc="&lt;p&gt;Kept words.&lt;/p&gt;"></iframe>',
        "<frameset><frame src=a><noframes><p>Kept words.</p></noframes></frameset>",
        '<div role="tabpanel" hidden>Kept words.</div>',
        '<div hidden="until-found">Kept words.</div>',
        '<body style="visibility:hidden"><p>Kept words.</p></body>',
        "<svg><text>Kept</text><text>words.</text></svg>",
        "<xmp>Kept words.</xmp>",
    ],
)
def test_no_part_of_a_page_is_dropped(page: str) -> None:
    assert "Kept words." in text_of(page)
    assert "<p>" not in text_of(page)


@pytest.mark.parametrize(
    "page",
    [
        "<nav><ul><li><a href=x>Left</a><li><a href=y>out</a></ul></nav>",
        '<div role="navigation"><a href=x>Left out</a></div>',
        "<div hidden>Left out</div>",
        '<p style="color:red; DISPLAY : none">Left out</p>',
        '<p style="visibility:hidden">Left out</p>',
        "<template>Left out</template>",
        "<noscript>Left out: please enable JavaScript</noscript>",
        "<script>Left out</script><style>Left{out:1}</style><!-- Left out -->",
        "<svg><title>Left out</title></svg>",
        '<img alt="Left.png" src="out.png">',
        '<iframe src="x">Left out</iframe>',
        '<datalist id="d"><option>Left out</datalist>',
        '<input type="hidden" value="Left out">',
    ],
)
def test_what_the_rules_leave_out(page: str) -> None:
    assert text_of(f"<p>Words</p>{page}<p>end.</p>") == "Words\n\nend."


def test_pictures_are_the_words_that_stand_in_for_them() -> None:
    assert text_of('<p>See <img alt="Map of the harbour" src="m.png">.') == "See [image: Map of the harbour]."
    figure = '<figure><img alt="A map"><figcaption>A map</figcaption></figure>'
    assert text_of(figure) == "A map"


def test_cells_of_tables_stay_apart() -> None:
    table = "<table><caption>Fees</caption><tr><th>Port<th>Fee<tr><td>Lund<td>120<tr><td>Vik<td>{}</table>"
    assert text_of(table.format("5 | 6")) == "Fees\n\n| Port | Fee |\n| --- | --- |\n| Lund | 120 |\n| Vik | 5 \\| 6 |"
    inner = "<table><tr><td>1<td>2<tr><td>3<td>4</table>"
    assert "| Vik | 1, 2; 3, 4 |" in text_of(table.format(inner))
    spans = "<table><tr><td rowspan=2>Lund<td>a<td>120<tr><td>b<td>3</table>"
    assert text_of(spans) == "| Lund | a | 120 |\n| --- | --- | --- |\n|  | b | 3 |"


def test_a_table_that_lays_out_the_page_is_no_table() -> None:
    page = (
        "<table><tr><td><h1>Head</h1><p>Words<pre>a\n  b</pre><td>"
        + "<table><tr><th>x<th>y<tr><td>1<td>2</table></table>"
    )
    assert text_of(page) == "# Head\n\nWords\n\n```\na\n  b\n```\n\n| x | y |\n| --- | --- |\n| 1 | 2 |"
    assert text_of("<td>c1</td><td>c2</td>") == "c1\n\nc2"


def test_numbers_of_lists_are_those_that_are_shown() -> None:
    assert text_of("<ol start=5><li>a<li>b</ol>") == "5. a\n6. b"
    assert text_of("<ol type=i start=3><li>a<li>b</ol>") == "- iii. a\n- iv. b"
    assert text_of("<ol type=A start=27><li>a</ol>") == "- AA. a"
    assert text_of("<ol reversed><li>a<li>b</ol>") == "- 2. a\n- 1. b"
    assert text_of("<ol><li value=7>a<li>b</ol>") == "- 7. a\n- 8. b"


def test_spaces_of_all_kinds_are_spaces() -> None:
    spaces = "&nbsp;&nbsp; &ensp; &emsp; &thinsp; &#8239; &#12288; &#8203; &#8232; &#173;"
    assert text_of(f"<p>a{spaces.replace(' ', 'b')}c</p>" * 50).count("c") == 50

    text = text_of("<p>港の　規則&ensp;と&emsp;料金</p>")
    assert [text.count(word) for word in ("港の", "規則", "と", "料金")] == [1, 1, 1, 1]


def test_words_are_as_they_are_read() -> None:
    assert (
        text_of("<p>1. one<p># two<p>- three *four* _five_ `six`") == "1. one\n\n# two\n\n- three *four* _five_ `six`"
    )
    assert text_of("<pre><code class='language-py'>  a\n\n\n  b</code></pre>") == "```py\n  a\n\n\n  b\n```"
    assert text_of("<a href=x>One</a><a href=y>two</a>, <b>a</b>b<wbr>c<br>d") == "One two, abc\nd"


@pytest.mark.parametrize("tag", ["font", "b", "div", "span"])
def test_tags_that_are_never_closed_cost_no_words(tag: str) -> None:
    text = text_of(f"<{tag}>line " * 5000 + "<p>after")
    assert text.count("line") == 5000 and text.endswith("after")


@pytest.mark.parametrize("tag", ["ul", "blockquote", "table"])
@pytest.mark.parametrize("depth", [1100, 5000])
def test_a_page_that_nests_without_end_is_refused_and_not_cut(tag: str, depth: int) -> None:
    try:
        assert text_of(f"<{tag}>line " * depth + "<p>after").count("line") == depth
    except Refused as refused:
        assert refused.reason == "bomb"


def test_xhtml_is_read_as_xml_where_it_is_that() -> None:
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/><script src="x"/></head><body>{}</body></html>'
    assert text_of(page.format("<p>a&nbsp;b<textarea/></p><p>c</p>")).split() == ["a", "b", "c"]
    assert text_of(page.format("<p>not well-formed<p>c").replace("<title/><script", "<meta")).endswith("c")


def test_the_title_is_that_of_the_page() -> None:
    assert read_html("<svg><title>Icon</title></svg><p>x")[1] is None
    assert read_html("<head><title>A &amp; B</title></head><svg><title>Icon</title></svg>")[1] == "A & B"


def test_an_epub_has_its_chapters_in_the_order_of_reading(parser: Parser) -> None:
    chapters = {
        "text/c 1.xhtml": "<h1>First</h1><p>10<sup>6</sup><a epub:type='noteref' href='n.xhtml#1'><sup>1</sup></a></p>",
        "text/c2.xhtml": "<h1>Second</h1><p>was <del>50</del>40</p>",
        "text/n.xhtml": "<aside>Note words.</aside>",
    }
    document = read(parser, "book.epub", book("The Title", chapters, spine=[1, 0, 2]))
    assert (document.title, document.is_markdown) == ("The Title", True)
    assert [heading.text for heading in document.headings] == ["Second", "First"]
    expected = ["# Second", "was ~~50~~ 40", "# First", "10^6[1]", "Note words."]
    assert document.text.split("\n\n") == expected


def test_an_epub_that_lacks_a_chapter_is_refused(parser: Parser) -> None:
    data = book("T", {"a.xhtml": "<p>a</p>"}, spine=[0], lost=["b.xhtml"])
    with pytest.raises(Refused, match=r"without OEBPS/b\.xhtml"):
        parser.parse(data, "application/epub+zip")
