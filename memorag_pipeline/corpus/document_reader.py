"""From the bytes of one source object to its documents, cut into chunks.

In:  an object of the source and its bytes.
Out: its document, or those of its records; each with its text and chunks, or the reason why there is none.
Wrong: nothing is raised; what cannot be read is `Refused`, as a value.

Objects with the same bytes are read and cut once: the results for the last few million characters are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from memorag_pipeline.corpus.chunk import Chunk, Chunker, identified
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.records import read_records
from memorag_pipeline.corpus.text import DocumentText, read_plain, read_text, titled
from memorag_pipeline.digests import bytes_digest, text_digest
from memorag_pipeline.specs.corpus import CorpusSpec

_KEPT = 16_000_000  # characters


@dataclass(frozen=True)
class ReadDocument:
    """A document of an object, or the reason why it is none. `chunks` have the ids that they have in this document."""

    document_id: str
    uri: str
    document: DocumentText | Refused
    chunks: list[Chunk]


class Reader:
    """Reads objects one after the other with one parser process."""

    def __init__(self, spec: CorpusSpec, parser: Parser, chunker: Chunker) -> None:
        self._language, self._source = spec.language, spec.source
        self._limit = int(spec.source.max_document_mb * (1 << 20))
        self._parser, self._chunker = parser, chunker
        self._known: OrderedDict[tuple[str, ...], tuple[str, DocumentText, list[Chunk]]] = OrderedDict()
        self._characters = 0

    def document(self, document_id: str, uri: str, data: bytes) -> ReadDocument:
        """The object as one document."""
        name = _name(uri)
        key = (bytes_digest(data), *(suffix.lower() for suffix in PurePosixPath(name).suffixes[-3:]))
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            like, document, chunks = known
            return ReadDocument(document_id, uri, titled(document, name, like), identified(document_id, chunks))
        try:
            document = read_text(name, data, self._language, self._parser, self._limit, self._source.max_expansion)
        except Refused as refused:
            return ReadDocument(document_id, uri, refused, [])
        chunks = self._chunker.cut(document_id, document.text, document.is_markdown, document.headings)
        self._keep(key, name, document, chunks)
        return ReadDocument(document_id, uri, document, chunks)

    def records(self, document_id: str, uri: str, data: bytes) -> Iterator[ReadDocument]:
        """The records of the object; the object itself where it is not of records at all."""
        try:
            plain = read_plain(_name(uri), data, self._language, self._limit, self._source.max_expansion)
            for record_id, document in read_records(plain, self._source.records, self._parser):
                place = record_uri(uri, record_id)
                own_id = text_digest(place)[:16]
                chunks = [] if isinstance(document, Refused) else self._chunker.cut(own_id, document.text, False)
                yield ReadDocument(own_id, place, document, chunks)
        except Refused as refused:
            yield ReadDocument(document_id, uri, refused, [])

    def _keep(self, key: tuple[str, ...], name: str, document: DocumentText, chunks: list[Chunk]) -> None:
        self._known[key] = (name, document, chunks)
        self._characters += len(document.text)
        while self._characters > _KEPT:
            _, (_, oldest, _) = self._known.popitem(last=False)
            self._characters -= len(oldest.text)


def record_uri(uri: str, record_id: str) -> str:
    """The URI of a record: that of its file, `#`, and its id, percent-encoded where it must be."""
    return f"{uri}#{quote(record_id, safe=':/@~.-_,+')}"


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
