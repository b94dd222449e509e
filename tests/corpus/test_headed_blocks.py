"""Tables and code blocks: where their headers and rows are."""

from __future__ import annotations

import time

import pytest

from memorag_pipeline.corpus.headed_blocks import headed_blocks


def parts(text: str) -> list[tuple[str, str]]:
    """(header, rows) of the blocks."""
    return [(text[block.start : block.body], text[block.body : block.end]) for block in headed_blocks(text)]


@pytest.mark.parametrize(
    "header, rows",
    [
        ("| a | b |\n|---|:-:|\n", "| 1 | 2 |\n| 3 | |\n"),
        ("a | b\n--- | ---\n", "1 | 2\n"),
        ("  | a |\n  | - |\n", "  | 1 |\n"),
        ("> | a | b |\n> |---|---|\n", "> | 1 | 2 |\n"),
        ("```python\n", "x = 1\n\n# | a |\n# |---|\ny = 2\n```\n"),
        ("~~~~\n", "```\nx\n```\n~~~~\n"),
        ("   ```sh\n", "   ls\n   ```\n"),
        (".. code-block:: c\n", "   :linenos:\n\n   int x;\n\n   int y;\n\n"),
        ("+---+---+\n| a | b |\n+===+===+\n", "| 1 | 2 |\n+---+---+\n"),
        ("=== ===\na   b\n=== ===\n", "1   2\n3   4\n=== ===\n"),
    ],
    ids=["pipes", "bare", "indented", "quoted", "fence", "tildes", "fence in a list", "directive", "grid", "simple"],
)
def test_blocks(header: str, rows: str) -> None:
    assert parts(f"Words | with a pipe.\n\n{header}{rows}Words behind.\n") == [(header, rows)]


def test_an_open_fence_goes_to_the_end() -> None:
    assert parts("a\n```\nb\nc") == [("```\n", "b\nc")]


@pytest.mark.parametrize(
    "text",
    [
        "Words --- and more | words\n",
        "| a | b |\n\n|---|---|\n",
        "---\ntitle: x\n---\n",
        "Title | of it\n-------------\n",
        "```code``` on one line\nwords\n",
        "=====\nTitle\n=====\n\nWords\n",
        "+---+\n| a |\n+---+\n",
        "| a |\n|---|\n",
    ],
)
def test_what_is_no_block(text: str) -> None:
    assert parts(text) == []


@pytest.mark.parametrize(
    "line", ["| a |\n|---|\n", "=== ===\n", "+---+\n", "```x\n", "|" * 5000 + "\n", "-|" * 3000 + "\n"]
)
def test_time_is_linear(line: str) -> None:
    started = time.process_time()
    headed_blocks(line * (2_000_000 // len(line)))
    assert time.process_time() - started < 20
