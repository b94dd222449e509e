"""Lines of Markdown are short enough to be read and compared; a row of a table cannot be broken."""

from __future__ import annotations

import subprocess

from tests.conftest import REPOSITORY

LONGEST = 120
# A long history is rewritten in one go, not by this rule.
LEFT_OUT = {"CHANGELOG.md"}


def test_lines_have_at_most_120_characters() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    pages = sorted({*found} - LEFT_OUT)
    assert len(pages) > 50
    long = [
        f"{page}:{number}"
        for page in pages
        for number, line in enumerate((REPOSITORY / page).read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > LONGEST and not line.lstrip().startswith("|")
    ]
    assert long == []
