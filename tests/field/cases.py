"""The cases of the field: small inputs after trouble that people reported with tools like this one.

The folder that `MEMORAG_FIELD` names (default: `shared/data/field/dev` beside the checkout) has a `manifest.jsonl`, a
row for each case: the input, and the check of its result. Each row is a separate test, in the module for the
kind of input that its name begins with, or in `test_others.py`. Without the folder these tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FIELD = Path(
    os.environ.get("MEMORAG_FIELD") or Path(__file__).parents[3] / "shared" / "data" / "field" / "dev"
).resolve()
# Rows that this project judges otherwise than the manifest: the check there, the check here, and why.
JUDGED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "specs/*.yaml": (
        {"accepted": 2},
        {"accepted": 3},
        "t_date.yaml is a good spec, too: YAML's dates are texts here, and 2026-01-01 is a name",
    ),
}
KINDS = ("documents/", "records/", "questions/", "endpoint/", "models/", "s3_keys.json#", "specs/")


@dataclass(frozen=True)
class Case:
    """A row of the manifest. `archive` is the tar file that holds the input, if one does."""

    name: str
    trouble: str = ""
    expectation: str = ""
    archive: str | None = None
    check: dict[str, Any] = field(default_factory=dict)

    @property
    def by_hand(self) -> bool:
        """Whether the manifest leaves the check to a person."""
        return "see" in self.check

    def __repr__(self) -> str:
        return self.name


@cache
def all_cases() -> tuple[Case, ...]:
    """The rows of the manifest; none if there is no folder."""
    manifest = FIELD / "manifest.jsonl"
    if not manifest.is_file():
        return ()
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(
        Case(
            row.get("file") or row["case"],
            row.get("trouble", ""),
            row.get("expectation", ""),
            row.get("in"),
            _judged(row.get("file") or row["case"], row["check"]),
        )
        for row in rows
    )


def _judged(name: str, check: dict[str, Any]) -> dict[str, Any]:
    there, here, _ = JUDGED.get(name, (None, {}, ""))
    return here if check == there else check


def each_case(*kinds: str, others: bool = False) -> pytest.MarkDecorator:
    """A test for each case whose name begins with one of `kinds`, or with none of KINDS for `others`."""
    if not all_cases():
        absent = pytest.mark.skip(reason=f"{FIELD} has no manifest.jsonl; name the folder in MEMORAG_FIELD")
        return pytest.mark.parametrize("case", [pytest.param(None, marks=absent, id="absent")])
    wanted = [case for case in all_cases() if case.name.startswith(KINDS if others else kinds) != others]
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in wanted])


def check_each(case: Case, checks: dict[str, Callable[[Any], None]]) -> None:
    """Call the check of each key of the row with its value. A key that nothing checks is an error of the harness."""
    unknown = case.check.keys() - checks.keys()
    assert not unknown, f"{case.name}: no check is written for {', '.join(sorted(unknown))}"
    for key, value in case.check.items():
        checks[key](value)


def texts(value: str | list[str]) -> Iterator[str]:
    """A text or several."""
    yield from [value] if isinstance(value, str) else value
