"""Which segments must not stay because of `refresh.purge`: a mask hides a text, and does not remove it.

In:  segments with the places that are masked in them; the globs of the purge.
Out: those that have a document to be forgotten, or a text of one under another name, among what is masked.
Wrong: a table that was altered is a `CorruptBlobError` that names it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.refresh.segments import Keys, Segment
from memorag_pipeline.retrieval.keys import key_numbers
from memorag_pipeline.storage import Blobs

Masked = tuple[Segment, npt.NDArray[np.int32]]  # a segment, and places of its row table


def holding_purged(blobs: Blobs, purge: Purge, segments: Sequence[Masked]) -> set[str]:
    """The fingerprints of these segments."""
    if not purge.globs:
        return set()
    texts, named = dict[str, Keys](), [np.empty(0, np.uint64)]
    for segment, places in segments:
        if len(places):
            texts[segment.fingerprint], matching = _masked_texts(blobs, purge, segment, places)
            named.append(matching)
    purged = np.concatenate(named)
    return {fingerprint for fingerprint, keys in texts.items() if np.isin(keys, purged).any()}


def _masked_texts(blobs: Blobs, purge: Purge, segment: Segment, places: npt.NDArray[np.int32]) -> tuple[Keys, Keys]:
    """The masked texts of a segment, and those of documents that are to be forgotten."""
    columns = ["digest", "table", "table_row"]
    rows = blobs.cached_table(segment.rows, columns, "segment_rows", schemas.SEGMENT_ROWS).take(places)
    keys, tables = key_numbers(rows.column("digest")), rows.column("table").to_numpy()
    matching = np.zeros(len(keys), np.bool_)
    for number in np.unique(tables).tolist():
        here = np.flatnonzero(tables == number)
        uris = blobs.cached_table(segment.tables[number], ["uri"], "chunks", schemas.CHUNKS).column("uri")
        uris = uris.take(rows.column("table_row").take(here))
        purged = [uri for uri in pc.unique(uris).to_pylist() if purge.matches(uri)]
        matching[here] = [uri in purged for uri in uris.to_pylist()] if purged else False
    return keys, keys[matching]
