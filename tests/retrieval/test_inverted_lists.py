"""Tables of inverted lists: where a list is in the file of an index, and that nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.faiss_index import build_index, write_index
from memorag_pipeline.retrieval.inverted_lists import ListTable, table_of_lists
from memorag_pipeline.specs.retrieval import IndexSpec

VECTORS = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)


def table(factory: str, folder: Path) -> ListTable | None:
    write_index(build_index(IndexSpec(factory=factory), 8, len(VECTORS), lambda: [VECTORS]), folder / "index")
    return table_of_lists(folder / "index")


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "PCA4,IVF4,Flat"])
def test_an_index_without_plain_lists_has_no_table(factory: str, tmp_path: Path) -> None:
    assert table(factory, tmp_path) is None


def test_a_table_is_that_of_its_template(tmp_path: Path) -> None:
    found = table("IVF4,Flat", tmp_path)
    assert found is not None
    assert np.diff(found.starts).sum() == len(VECTORS) * (8 * 4 + 8)
    template = faiss.index_factory(8, "IVF4,Flat")
    assert np.array_equal(ListTable.of(found.data(), template, "lists").starts, found.starts)
    for other in (faiss.index_factory(8, "IVF5,Flat"), faiss.index_factory(8, "Flat")):
        with pytest.raises(CorruptBlobError, match="lists: not a table of the inverted lists of its index"):
            ListTable.of(found.data(), other, "lists")
    with pytest.raises(CorruptBlobError, match="lists: not a table of inverted lists"):
        ListTable.of(b"nothing of the kind", template, "lists")
