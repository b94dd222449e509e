"""JSON as written: numbers keep their digits, and no key is lost.

In:  a text that is one JSON value.
Out: the value; numbers with a point or an exponent, NaN and Infinity as their source text.
Wrong: not JSON: ValueError; nested too deep: RecursionError.

A repeated key of an object gets a separate name, like a repeated column of a table.
"""

from __future__ import annotations

import json
from typing import Any

from memorag_pipeline.corpus.delimited import column_names


class Number(str):
    """A number as written."""

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
