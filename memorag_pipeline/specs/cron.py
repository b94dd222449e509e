"""Cron expressions in Airflow's syntax: five fields, or a preset such as @daily.

Checked here because the library runs without Airflow, and a wrong schedule should be refused with the spec, not by
the scheduler at night. Stricter than croniter on purpose: no seconds, no `L`, `W`, `#` or hashed fields.
"""

from __future__ import annotations

import re

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_ITEM = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?")


def check_cron(expression: str) -> str:
    """`expression` itself; ValueError says which field is wrong and what it may hold."""
    if expression.startswith("@"):
        if expression not in PRESETS:
            raise ValueError(f"not a preset; use one of {', '.join(PRESETS)}")
        return expression
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"not a cron expression: five fields are needed ({len(fields)} given), or a preset as @daily")
    for text, (name, lowest, highest, names) in zip(fields, _FIELDS, strict=True):
        for item in text.split(","):
            if not _item_fits(item, lowest, highest, names):
                spelled = f" or {names[0]}-{names[-1]}" if names else ""
                raise ValueError(f"{item!r} is no {name}: use {lowest}-{highest}{spelled}, *, ranges a-b, steps */n")
    return expression


def _item_fits(item: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    match = _ITEM.fullmatch(item)
    if match is None:
        return False
    step = match["step"]
    if step is not None and not 1 <= int(step) <= highest:
        return False
    if match["first"] is None:
        return True
    first = _number(match["first"], lowest, names)
    last = _number(match["last"], lowest, names) if match["last"] is not None else first
    if first is None or last is None or (step is not None and match["last"] is None):
        return False
    return lowest <= first <= last <= highest


def _number(text: str, lowest: int, names: tuple[str, ...]) -> int | None:
    """The value of a number, or of a month's or day's name (January is 1, Sunday is 0)."""
    if text.lower() in names:
        return names.index(text.lower()) + lowest
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else None
