"""Loading a model once per process, whichever thread asks first.

In:  a function that loads a model from hashable arguments.
Out: the same function, which keeps what it loaded last; one thread loads at a time, because loading sets torch's and
     transformers' global state (default dtype, the meta device).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

Given = ParamSpec("Given")
Loaded = TypeVar("Loaded")

_loading = threading.RLock()  # one for all: loading a memory model loads its language model


class loaded_once(Generic[Given, Loaded]):
    """Keep what a function loads for each set of arguments, and let one thread load at a time."""

    def __init__(self, load: Callable[Given, Loaded], kept: int | None = None) -> None:
        """`kept`: how many models to keep, the last used ones; None for all."""
        self.load = load  # without caching
        self._cached: Callable[Given, Loaded] = functools.lru_cache(kept)(load)
        functools.update_wrapper(self, load)

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Loaded:
        with _loading:
            return self._cached(*args, **kwargs)

    def cache_clear(self) -> None:
        """Drop what was loaded."""
        with _loading:
            self._cached.cache_clear()  # type: ignore[attr-defined]
