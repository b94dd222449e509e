"""A range of versions, as people write it: `3-7`.

In:  the range, and the store of the corpus.
Out: the numbers of its versions that are not retired, in order.
Wrong: no range: `ValueError`; a range without versions: `NotFoundError`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memorag_pipeline.errors import NotFoundError

if TYPE_CHECKING:
    from memorag_pipeline.storage import CorpusStore

RANGE = r"^[0-9]+-[0-9]+$"


def versions_in(store: CorpusStore, versions: str) -> list[int]:
    """The numbers in FROM-TO that are not retired."""
    if re.fullmatch(RANGE, versions) is None:
        raise ValueError(f"{versions!r} is no range of versions, such as 3-7")
    first, last = (int(number) for number in versions.split("-"))
    found = [number for number in store.versions.retained() if first <= number <= last]
    if not found:
        raise NotFoundError(f"{store.uri} holds no version from {first} to {last} that is not retired")
    return found
