"""Front matter: the title that a text declares, and where its words begin."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.front_matter import front_matter
from memorag_pipeline.corpus.headings import declared_title, markdown_headings
from memorag_pipeline.corpus.parser import Parser
from tests.corpus.test_text import read


@pytest.mark.parametrize(
    ("matter", "title"),
    [
        ("title: >-\n  Mooring rules for\n  the north basin\ntags: [a]", "Mooring rules for the north basin"),
        ("title: |\n  Mooring\n  rules\n", "Mooring rules"),
        ("title: Mooring # draft\nauthor: 'A: B'", "Mooring"),
        ('title: "Mooring # 2: \\u00fcber"', "Mooring # 2: über"),
        ("title: 'It''s'", "It's"),
        ("# no: comment\nTitle: Mooring", "Mooring"),
        ("title: Mooring\n  rules", "Mooring rules"),
        ("title: 2026", "2026"),
        ("title: on", "on"),
        ("title: 2026-11-30", "2026-11-30"),
        ("title: [First, Second]", "First"),
        ("title: {en: Mooring}", None),
        ("title:", None),
        ("weight: 3", None),
        ("title: &a Mooring\nother: *a", "Mooring"),
        ("title: !!python/name:os.system", None),
        ("title: !!python/object/apply:os.system [ls]", "ls"),
        ("title: Mooring: the rules\ntags: [", "Mooring: the rules"),
        ('title: "a\\0b\\tc"', "a b c"),
        ("title: " + "long " * 100, ("long " * 100)[:200]),
        ("", None),
    ],
)
def test_the_title_in_yaml(matter: str, title: str | None) -> None:
    for end in ("---", "...", "--- "):
        text = f"---\n{matter}\n{end}\n\n# Body\n"
        assert declared_title(text) == (title.strip() if title else title)
        assert [heading.text for heading in markdown_headings(text)] == ["Body"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('+++\ntitle = "Mooring = 2" # draft\n[extra]\ntitle = "no"\n+++\n\n# Body\n', "Mooring = 2"),
        ("+++\ntitle = '''\nMooring\nrules'''\n+++\n# Body\n", "Mooring rules"),
        ('+++\ntitle = "Mooring"\nbroken = \n+++\n# Body\n', "Mooring"),
        ('{"title": "Mooring", "tags": {"a": 1}}\n\n# Body\n', "Mooring"),
        ('{\n  "title": "Mooring"\n}\n# Body\n', "Mooring"),
    ],
)
def test_the_title_in_toml_and_json(text: str, title: str) -> None:
    assert declared_title(text) == title
    assert [heading.text for heading in markdown_headings(text)] == ["Body"]


@pytest.mark.parametrize(
    "text",
    [
        "---\n\n# Title\n\nWords between two rules.\n\n---\n",
        "---\ntitle: never closed\n\n# Title\n",
        "+++\nno toml at all\n+++\n# Title\n",
        "{ a brace\n# Title\n",
        '{"title": "JSON"} goes on\n# Title\n',
        "{{< shortcode >}}\n# Title\n",
        "---\n- a\n- list\n---\n# Title\n",
        "# Title\n---\ntitle: x\n---\n",
    ],
)
def test_what_is_no_front_matter_is_text(text: str) -> None:
    assert front_matter(text) == (None, 0)
    assert "Title" in [heading.text for heading in markdown_headings(text)]


@pytest.mark.parametrize("text", ["---\n" + "[" * 30_000 + "\n---\n", "---\na: &a [x]\nb: &b [*a,*a]\ntitle: t\n---\n"])
def test_no_front_matter_stops_the_reading(text: str) -> None:
    front_matter(text)


def test_a_document_has_that_title(parser: Parser) -> None:
    document = read(parser, "a.md", b"\xef\xbb\xbf---\r\ntitle: >-\r\n  Mooring\r\n  rules\r\n---\r\n\r\n# Body\r\n")
    assert document.title == "Mooring rules" and document.text.startswith("---\ntitle: >-\n")
    assert read(parser, "a.json", b'{"title": "x"}').title == "a"
