"""Human-readable amounts: sizes and times with units.

In:  bytes, seconds.
Out: short texts.
"""

from __future__ import annotations

from datetime import timedelta


def bytes_text(size: int) -> str:
    """A size with a decimal unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def duration_text(seconds: float) -> str:
    """Seconds, below ten with one decimal; from a minute, hours, minutes and seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 59.5 else str(timedelta(seconds=round(seconds)))
