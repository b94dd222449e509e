"""Plans and work lists as the JSON that they are in the store, whatever reads or writes them."""

from __future__ import annotations

from typing import Any

from memorag_pipeline.pipeline import Workplace


def write_json(place: Workplace, value: Any) -> str:
    blobs = place.store.blobs
    return blobs.uri(blobs.put_json(value))


def read_json(place: Workplace, uri: str) -> Any:
    return place.store.blobs.get_json(place.store.blobs.ref_of(uri))
