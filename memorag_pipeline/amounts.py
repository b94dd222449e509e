"""Human-readable amounts: sizes, times and counts with units.

In:  bytes, seconds, counts by name.
Out: short texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta


def bytes_text(size: int) -> str:
    """A size with a decimal unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def counts_text(counts: Mapping[str, float]) -> str:
    """Counts with their names, as `12 documents, 1 error`; those that are zero are left out."""
    named = ((value, name.replace("_", " ")) for name, value in counts.items() if value)
    return ", ".join(f"{_number(value)} {_singular(name) if value == 1 else name}" for value, name in named)


def _number(value: float) -> str:
    # A fraction among counts is a score or a cost.
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _singular(name: str) -> str:
    """The name of one thing: the first plural of `name` in the singular, `memorize unit` or `unit reused`."""
    return re.sub(r"(ie)?s\b", lambda ending: "y" if ending[1] else "", name, count=1)


def duration_text(seconds: float) -> str:
    """Seconds, below ten with one decimal; from a minute, hours, minutes and seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 59.5 else str(timedelta(seconds=round(seconds)))
