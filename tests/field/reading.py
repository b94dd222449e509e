"""What the stages inventory and extract make of a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.plans import InventoryPlan
from memorag_pipeline.retrieval.terms import terms_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """One object of a source: whether it was listed, and the rows of its documents, chunks and refusals."""

    listed: bool
    documents: list[Row]
    chunks: list[Row]
    refused: list[Row]

    @property
    def document(self) -> Row:
        """The document that the object is."""
        assert self.listed, "it is not part of the corpus"
        assert self.documents, f"it is refused: {self.refused}"
        return self.documents[0]

    @property
    def text(self) -> str:
        """The text of the document, or of all records."""
        return self.document["text"] + "".join(f"\n{other['text']}" for other in self.documents[1:])

    @property
    def terms(self) -> set[str]:
        """The terms by which its chunks are found."""
        return {term for chunk in self.chunks for term in terms_of(chunk["text"])}


@dataclass(frozen=True)
class Corpus:
    """The rows of a whole source."""

    listed: frozenset[str]
    documents: list[Row]
    chunks: list[Row]
    refused: list[Row]

    def of(self, uri: str) -> Read:
        """What became of the object at a URI; records of it have its URI and `#`."""

        def own(rows: Iterable[Row]) -> list[Row]:
            return [row for row in rows if row["uri"] == uri or row["uri"].startswith(f"{uri}#")]

        return Read(uri in self.listed, own(self.documents), own(self.chunks), own(self.refused))


def read_corpus(pipeline: Pipeline) -> Corpus:
    """Inventory and extract, without the stages after."""
    inventory = take_inventory(pipeline)
    for work in inventory["extract"]:
        extract(pipeline, work)
    plan = pipeline.read_work(inventory["plan"], InventoryPlan)
    blobs = pipeline.store.blobs
    outcomes = pipeline.store.units.find_all("extract", plan.parts)

    def rows(role: str) -> list[Row]:
        return [
            row
            for outcome in outcomes
            if outcome is not None and role in outcome.blobs
            for row in blobs.get_table(outcome.blobs[role]).to_pylist()
        ]

    listed = frozenset(row["uri"] for row in blobs.get_table(plan.inventory).to_pylist())
    return Corpus(listed, rows("documents"), rows("chunks"), rows("quarantine"))
