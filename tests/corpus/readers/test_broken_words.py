"""Words that are broken at the end of a line."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.readers.broken_words import CELL_BREAK, whole_words


@pytest.mark.parametrize(
    "text, whole",
    [
        ("the instal-\nlation of it", "the installation\nof it"),
        ("the instal\u00ad\nlation.", "the installation.\n"),
        ("the instal\u2010\nlation", "the installation\n"),
        ("INSTAL-\nLATION", "INSTALLATION\n"),
        ("Straßen-\nbahnen fahren", "Straßenbahnen\nfahren"),
        ("a well-\nknown one", "a well-known\none"),
        ("the cross-\ning", "the crossing\n"),
        ("twenty-\nfive", "twenty-five\n"),
        ("state-of-the-\nart manuals", "state-of-the-art\nmanuals"),
        ("2019-\n2020 report", "2019-2020\nreport"),
        ("the Franco-\nGerman one", "the Franco-German\none"),
        ("Haupt-\nund Nebensatz", "Haupt- und\nNebensatz"),
        ("the pre-\nand post-war", "the pre- and\npost-war"),
        ("an e-mail, then an e-\nmail", "an e-mail, then an e-mail\n"),
        ("a cooperation, one co-\noperation", "a cooperation, one cooperation\n"),
        ("no break -\nhere", "no break -\nhere"),
        ("- item\n- item", "- item\n- item"),
        (f"| an instal-{CELL_BREAK}lation of{CELL_BREAK}it |", "| an installation of it |"),
        ("the instal-\n\nlation on the next page", "the installation\non the next page"),
    ],
)
def test_words(text: str, whole: str) -> None:
    assert whole_words(text) == whole


def test_a_long_run_of_hyphens_takes_no_time() -> None:
    assert len(whole_words("a-" * 200_000 + "\nb" * 1000)) > 400_000
