"""From the bytes of one source object to its documents, cut into chunks and sections.

In:  an object of the source and its bytes.
Out: its document, or those of its records; each with its text, chunks and sections, or the reason why it has none.
Wrong: what cannot be read is a `Refused` value; nothing is raised.

Objects with the same bytes are read and cut once: the results for the last few million characters are kept.
All of it runs in the reading process (`reader_process.py`), because a document's bytes may hang or kill it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.corpus.chunk import Chunk, Chunker, identified
from memorag_pipeline.corpus.headed_blocks import HeadedBlock, whole_table
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.records import read_records
from memorag_pipeline.corpus.sections import DocumentSection, Sectioner
from memorag_pipeline.corpus.text import DocumentText, read_plain, read_text, titled
from memorag_pipeline.digests import bytes_digest, text_digest
from memorag_pipeline.models.references import ResolvedModel
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.specs.source import ChunkingSpec, RecordsSpec, ShardingSpec

_KEPT = 16_000_000  # characters
Render = Callable[[str, str, str], str]


class ReadingSpec(BaseModel):
    """Everything that reading documents depends on; `chunk_tokens` is the maximum of a chunk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str
    max_bytes: int
    max_characters: int
    max_pages: int
    max_expansion: float
    records: RecordsSpec
    chunking: ChunkingSpec
    sharding: ShardingSpec
    chunk_tokens: int
    embedding: ResolvedModel
    memory: ResolvedModel


@dataclass(frozen=True)
class ReadDocument:
    """A document of an object, or the reason why it was refused. `chunks` have their ids in this document."""

    document_id: str
    uri: str
    document: DocumentText | Refused
    chunks: list[Chunk]
    sections: list[DocumentSection]


class Watch:
    """Notified of a reader's next step; the reading process reports it to the process that keeps the time."""

    def record(self, number: int, document_id: str, uri: str) -> None:
        """A record of a file is about to be read."""

    def cutting(self, done: int, of: int) -> None:
        """Characters of the document or record that are cut into chunks so far."""


class Reader:
    """Reads objects one after the other. `render` gives the form in which a section is memorized (uri, title, text)."""

    def __init__(self, spec: ReadingSpec, render: Render, watch: Watch | None = None) -> None:
        self._spec, self._watch = spec, watch or Watch()
        self._parser = Parser(spec.max_pages, spec.max_characters)
        embedding, memory = token_counter(spec.embedding), token_counter(spec.memory)
        self._chunker = Chunker(spec.chunking, spec.sharding, embedding, memory, spec.chunk_tokens)
        self._sectioner = Sectioner(memory, spec.sharding.max_tokens, render)
        self._known: OrderedDict[tuple[str, ...], tuple[str, DocumentText, list[Chunk]]] = OrderedDict()
        self._characters = 0

    def document(self, document_id: str, uri: str, data: bytes) -> ReadDocument:
        """The object as one document."""
        try:
            document, chunks = self._document(document_id, _name(uri), data)
            return self._sectioned(document_id, uri, document, chunks)
        except Exception as error:
            return ReadDocument(document_id, uri, refusal(error), [], [])

    def records(self, document_id: str, uri: str, data: bytes, first: int = 0) -> Iterator[ReadDocument]:
        """The records of the object from number `first` on; the object itself if it does not hold records."""
        spec, characters = self._spec, 0

        def place(record_id: str) -> tuple[str, str]:
            own_uri = record_uri(uri, record_id)
            return text_digest(own_uri)[:16], own_uri

        def wants(number: int, record_id: str) -> bool:
            if number >= first:
                self._watch.record(number, *place(record_id))
            return number >= first

        try:
            plain = read_plain(_name(uri), data, spec.language, spec.max_bytes, spec.max_expansion)
            # Each record's text repeats the column and field names, so a file may give far more text than it holds.
            allowed = max(spec.max_characters, 2 * len(plain.text))
            for record_id, document in read_records(plain, spec.records, self._parser, wants):
                if not isinstance(document, Refused):
                    characters += len(document.text)
                    if characters > allowed:
                        raise Refused(
                            "too_large",
                            f"gives more than {allowed:,} characters of text (source.max_extracted_characters);"
                            f" record {record_id} and those after it are left out",
                        )
                yield self._record(*place(record_id), document)
        except Exception as error:
            yield ReadDocument(document_id, uri, refusal(error), [], [])

    def _document(self, document_id: str, name: str, data: bytes) -> tuple[DocumentText, list[Chunk]]:
        key = (bytes_digest(data), *(suffix.lower() for suffix in PurePosixPath(name).suffixes[-3:]))
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            like, document, chunks = known
            return titled(document, name, like), identified(document_id, chunks)
        spec = self._spec
        document = read_text(name, data, spec.language, self._parser, spec.max_bytes, spec.max_expansion)
        # The first line of a table names the columns; each record of a table names its own.
        table = whole_table(document.text) if document.media_type == "text/csv" else None
        chunks = self._cut(document_id, document, table)
        self._keep(key, name, document, chunks)
        return document, chunks

    def _record(self, document_id: str, uri: str, document: DocumentText | Refused) -> ReadDocument:
        if isinstance(document, Refused):
            return ReadDocument(document_id, uri, document, [], [])
        try:
            return self._sectioned(document_id, uri, document, self._cut(document_id, document))
        except Exception as error:
            return ReadDocument(document_id, uri, refusal(error), [], [])

    def _cut(self, document_id: str, document: DocumentText, table: HeadedBlock | None = None) -> list[Chunk]:
        def progress(done: int) -> None:
            self._watch.cutting(done, len(document.text))

        blocks = None if table is None else [table]
        return self._chunker.cut(document_id, document.text, document.is_markdown, document.headings, progress, blocks)

    def _sectioned(self, document_id: str, uri: str, document: DocumentText, chunks: list[Chunk]) -> ReadDocument:
        self._watch.cutting(len(document.text), len(document.text))
        sections = self._sectioner.cut(uri, document.title, document.text, chunks)
        return ReadDocument(document_id, uri, document, chunks, sections)

    def _keep(self, key: tuple[str, ...], name: str, document: DocumentText, chunks: list[Chunk]) -> None:
        self._known[key] = (name, document, chunks)
        self._characters += len(document.text)
        while self._characters > _KEPT:
            _, (_, oldest, _) = self._known.popitem(last=False)
            self._characters -= len(oldest.text)


def refusal(error: Exception) -> Refused:
    """The refusal of a document whose reading ended in this error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MemoryError):
        return Refused("too_large", "needs more memory than the reading process may use")
    if isinstance(error, RecursionError):
        return Refused("bomb", "nests without end")
    return Refused("crashed", f"reading it failed: {type(error).__name__}: {error}")


def record_uri(uri: str, record_id: str) -> str:
    """The URI of a record: that of its file, `#`, and its id, percent-encoded where needed."""
    return f"{uri}#{quote(record_id, safe=':/@~.-_,+')}"


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]  # an S3 key may end with /
