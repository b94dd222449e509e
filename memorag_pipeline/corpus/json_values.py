"""JSON as it is written: numbers keep their digits, and no key is lost.

In:  a text that is one JSON value.
Out: the value; numbers with a point or an exponent, NaN and Infinity as the text that stands there.
Wrong: what is no JSON: ValueError; what nests too deep: RecursionError.

A key that an object has twice is kept under a name of its own, as a column of a table is.
"""

from __future__ import annotations

import json
from typing import Any

from memorag_pipeline.corpus.delimited import column_names


class Number(str):
    """A number as it is written."""

    __slots__ = ()


def json_value(text: str) -> Any:
    """The value. Raises ValueError, RecursionError."""
    return json.loads(text, parse_float=Number, parse_constant=Number, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = column_names([name for name, _ in pairs])
    return dict(zip(names, (value for _, value in pairs), strict=True))
