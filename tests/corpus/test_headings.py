"""Headings of Markdown and reStructuredText are at their offsets."""

from __future__ import annotations

import time
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.corpus.headings import Heading, declared_title, markdown_headings, rst_headings

MARKDOWN = """---
title: "The page"
# no: heading
---

Setext title
============

# One #
text
## Two ¶
```python
# a comment
```
~~~
## also code
```
~~~
Under
-----
> quoted
---
| a | b |
| - | - |
---
#hashtag
"""

RST = """\
=====
Title
=====

Intro
*****

A line
::

   indented
   --------

Sub
---

=====  =====
a      b
=====  =====

Second
*******
"""


def test_markdown_headings() -> None:
    headings = markdown_headings(MARKDOWN)
    assert [(heading.level, heading.text) for heading in headings] == [
        (1, "Setext title"),
        (1, "One"),
        (2, "Two"),
        (2, "Under"),
    ]
    for heading in headings:
        assert heading.text in MARKDOWN[heading.start :].split("\n")[0]


def test_rst_headings_have_levels_by_the_order_of_their_adornments() -> None:
    headings = rst_headings(RST)
    assert [(heading.level, heading.text) for heading in headings] == [
        (1, "Title"),
        (2, "Intro"),
        (3, "Sub"),
        (2, "Second"),
    ]
    for heading in headings:
        assert RST[heading.start :].startswith(heading.text)


def test_real_reference_pages() -> None:
    assert rst_headings(topics["lambda"]) == [Heading(1, 0, "Lambdas")]
    assert rst_headings(topics["customization"])[0].text == "Basic customization"


def test_declared_title() -> None:
    assert declared_title(MARKDOWN) == "The page"
    assert declared_title("title: no front matter\n") is None
    assert declared_title("---\nunclosed: yes\n") is None


@given(st.text(alphabet="#=-*~`> \n\tab", max_size=120))
def test_any_text_gives_headings_in_order(text: str) -> None:
    for find in (markdown_headings, rst_headings):
        headings = find(text)
        assert [heading.start for heading in headings] == sorted({heading.start for heading in headings})
        for heading in headings:
            assert heading.text in text[heading.start :].split("\n")[0]


@pytest.mark.parametrize(
    "text",
    ["# " + " #" * 100_000, "=" * 40_000, "---\n" * 40_000, "# a\n" * 40_000, "a\n=\n" * 40_000],
    ids=["hashes", "one adornment", "rules", "headings", "setext"],
)
def test_time_is_linear(text: str) -> None:
    started = time.process_time()
    markdown_headings(text)
    rst_headings(text)
    assert time.process_time() - started < 4


def texts(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in markdown_headings(text)]


def test_code_on_one_line_is_no_fence() -> None:
    assert texts("# One\n\n```pip install boat```\n\n# Two\n") == [(1, "One"), (1, "Two")]
    assert texts("# One\n~~~ a`b\n# no\n~~~\n# Two\n") == [(1, "One"), (1, "Two")]


def test_no_heading_from_a_comment_or_code_in_html() -> None:
    text = "<!--\n# no\n-->\n# One\n<!-- x --> words\n## Two\n<pre>\n# no\n</pre>\n"
    text += "<script>\n# no\n</script>\n### Three\n"
    assert texts(text) == [(1, "One"), (2, "Two"), (3, "Three")]
    assert texts("```\n<!--\n```\n# One\n") == [(1, "One")]
    assert texts("<!-- never closed\n# One\n") == [(1, "One")]


def test_headings_in_html_count() -> None:
    text = '<h1 align="center">Tide <b>tool</b> &amp; more</h1>\n\n<h2>\n  <img src="a">\n  Below\n</h2>\n# Last\n'
    assert texts(text) == [(1, "Tide tool & more"), (2, "Below"), (1, "Last")]
    assert text[markdown_headings(text)[1].start :].lstrip().startswith("Below")
    assert texts("<h1>never closed\n# One\n") == [(1, "One")]
    assert texts("<h1><img src='a'></h1>\n# One\n") == [(1, "One")]


@pytest.mark.parametrize("text", ["<!--\n" * 60_000, "<h1>\n" * 60_000, "<pre>\n" * 60_000])
def test_time_is_linear_in_html_that_is_never_closed(text: str) -> None:
    started = time.process_time()
    markdown_headings(text)
    assert time.process_time() - started < 4
