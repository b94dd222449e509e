"""Where a list is in the file of an index, and that the lists of another template are not taken for those of one."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.faiss_index import build_index, write_index
from memorag_pipeline.retrieval.inverted_lists import RemoteLists, RemoteSegment, pieces_of_lists
from memorag_pipeline.specs.retrieval import IndexSpec
from memorag_pipeline.storage.pieces import Pieces

VECTORS = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)


def lists(factory: str, folder: Path) -> Pieces | None:
    write_index(build_index(IndexSpec(factory=factory), 8, len(VECTORS), lambda: [VECTORS]), folder / "index")
    return pieces_of_lists(folder / "index")


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "PCA4,IVF4,Flat"])
def test_an_index_without_plain_lists_has_none(factory: str, tmp_path: Path) -> None:
    assert lists(factory, tmp_path) is None


def test_the_lists_are_those_of_their_template(tmp_path: Path) -> None:
    found = lists("IVF4,Flat", tmp_path)
    assert found is not None and len(found) == 4
    assert np.diff(found.starts).sum() == len(VECTORS) * (8 * 4 + 8)
    segment = RemoteSegment(0, len(VECTORS), found, lambda start, size: b"", "index/00000.faiss")
    RemoteLists(faiss.index_factory(8, "IVF4,Flat"), [segment])
    for other in (faiss.index_factory(8, "IVF5,Flat"), faiss.index_factory(8, "Flat")):
        with pytest.raises(
            CorruptBlobError, match=r"index/00000\.faiss: its inverted lists are not those of its template"
        ):
            RemoteLists(other, [segment])
