"""Figures of a benchmark: a table on stderr as they come, a line of JSON each on stdout and, on request, in a file.

In:  `Figure`s, and what all of them have in common.
Out: text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What was measured, and what beside it in the same run.

    `bound` and `target` are of `ratio`; with `at_most` a smaller ratio is the better one. A bound is the limit by
    unavoidable arithmetic or traffic; `note` says how it was computed.
    """

    row: str
    what: str
    dtype: str
    tokens: int
    slots: int
    value: float
    unit: str
    against: str
    baseline: float
    bound: float | None = None
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        """Of value to baseline."""
        return self.value / self.baseline

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


class Report:
    """Where figures go. `common` is written into every line of JSON."""

    def __init__(self, benchmark: str, common: Mapping[str, Any], append: Path | None = None) -> None:
        self.benchmark, self.common, self.append = benchmark, dict(common), append
        self._headed = False

    def add(self, figure: Figure) -> None:
        """Print a figure, and append it to the file."""
        record = {"benchmark": self.benchmark, **asdict(figure), "ratio": figure.ratio, "reached": figure.reached}
        self.write({key: _rounded(value) for key, value in record.items()})
        if not self._headed:
            self._headed = True
            print(_LINE.format(*_HEADINGS).rstrip(), file=sys.stderr)
        print(_LINE.format(*_cells(figure)).rstrip(), file=sys.stderr, flush=True)

    def values(self, row: str, what: str, values: Mapping[str, float]) -> None:
        """Print several numbers of one thing, and append them to the file."""
        rounded = {name: _rounded(value) for name, value in values.items()}
        self.write({"benchmark": self.benchmark, "row": row, "what": what, **rounded})
        shown = ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
        print(f"{row:<10} {what:<18} {shown}", file=sys.stderr, flush=True)

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of JSON on stdout and in the file."""
        line = json.dumps({**record, **self.common})
        print(line, flush=True)
        if self.append is not None:
            self.append.parent.mkdir(parents=True, exist_ok=True)
            with self.append.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def records(path: Path | None) -> Iterator[dict[str, Any]]:
    """The lines of a file of figures; empty if there is no file."""
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


_LINE = "{:<34} {:<8} {:>7} {:>6} {:>15}  {:<30} {:>9} {:>7} {:>7} {:>8} {:<6}  {}"
_HEADINGS = (
    "what",
    "dtype",
    "tokens",
    "slots",
    "measured",
    "against",
    "measured",
    "ratio",
    "bound",
    "target",
    "",
    "note",
)


def _cells(figure: Figure) -> Iterator[str]:
    yield from (figure.what, figure.dtype, str(figure.tokens), str(figure.slots))
    yield f"{_short(figure.value)} {figure.unit}"
    yield from (figure.against, _short(figure.baseline), _short(figure.ratio))
    yield "" if figure.bound is None else _short(figure.bound)
    yield "" if figure.target is None else f"{'<=' if figure.at_most else '>='} {_short(figure.target)}"
    yield {True: "yes", False: "MISSED", None: ""}[figure.reached]
    yield figure.note


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
