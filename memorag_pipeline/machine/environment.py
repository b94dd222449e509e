"""Numbers that the environment sets.

In:  the name of a variable, and its default.
Out: the number.
Wrong: a value that is not such a number: `StorageError` that names the variable and says what to set.
"""

from __future__ import annotations

import os

from memorag_pipeline.errors import StorageError


def number_of(name: str, default: float, least: float, expected: str) -> float:
    """The finite number that variable `name` sets, from `least` on; `expected` says in an error what it should be."""
    configured = os.environ.get(name, str(default))
    try:
        number = float(configured)
    except ValueError:
        number = float("nan")
    if not least <= number < float("inf"):
        raise StorageError(f"{name} is {configured!r}; set it to {expected}")
    return number
