"""Templates of HTML pages: what they are given is escaped, and a name that is missing is an error.

In:  a package with a folder `templates`; the layout of all pages is here.
Out: a jinja environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates_of(package: str, finalize: Callable[[Any], Any] | None = None) -> Environment:
    """The templates of a package and those that all share; `finalize` says what is printed for a value."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("memorag_pipeline.html")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
