"""The protocol between a reading process and the process that keeps its time.

In:  a pipe.
Out: frames: 8 bytes of length (big-endian) and a JSON object; documents as such objects.
Wrong: no whole frame before the deadline: `TimeoutError`. The other end is closed: `EOFError`.

| frame                               | sent when                                                     |
|-------------------------------------|---------------------------------------------------------------|
| {"ready"}                           | the process can read documents                                |
| {"record", "document_id", "uri"}    | the record with this number is about to be read               |
| {"done", "of"}                      | `done` of `of` characters of the document or record are cut   |
| {"document_id", "uri", "text", ...} | a document or record was read or refused                      |
| {"end"}                             | the object has no more documents                              |
"""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import astuple
from typing import IO, Any

from memorag_pipeline.corpus.chunk import Chunk
from memorag_pipeline.corpus.document_reader import ReadDocument
from memorag_pipeline.corpus.headings import Heading
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.sections import DocumentSection
from memorag_pipeline.corpus.text import DocumentText

Frame = dict[str, Any]
MILLION = 1_000_000  # characters that may take as long to cut as reading a document
_LONGEST_WAIT = 3600.0  # seconds of one system call, which does not accept arbitrary numbers


def write_frame(stream: IO[bytes], value: Frame, more: bool = False) -> None:
    """Send a frame, or keep it until the next one is sent if there are `more`."""
    # A text may hold a lone surrogate, which JSON's reader accepts in this form, too.
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    stream.write(len(data).to_bytes(8, "big") + data)
    if not more:
        stream.flush()


class FrameReader:
    """Reads frames from a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._received = bytearray()

    def read(self, deadline: float) -> Frame:
        """The next frame. `deadline` is a time of the monotonic clock."""
        size = int.from_bytes(self._take(8, deadline), "big")
        frame: Frame = json.loads(self._take(size, deadline))
        return frame

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            left = deadline - time.monotonic()
            if self._poll.poll(1000 * min(max(left, 0), _LONGEST_WAIT)):
                piece = os.read(self._pipe, 1 << 20)
                if not piece:
                    raise EOFError
                self._received += piece
            elif left <= 0:
                raise TimeoutError
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def to_frame(read: ReadDocument) -> Frame:
    """A document that was read, without the texts of chunks, which are parts of its text."""
    document = read.document
    place = {"document_id": read.document_id, "uri": read.uri}
    if isinstance(document, Refused):
        return {**place, "reason": document.reason, "detail": document.detail}
    return {
        **place,
        "text": document.text,
        "media_type": document.media_type,
        "title": document.title,
        "headings": [astuple(heading) for heading in document.headings],
        "chunks": [
            (each.chunk_id, each.start, each.end, each.tokens, each.digest, each.header) for each in read.chunks
        ],
        "sections": [astuple(section) for section in read.sections],
    }


def from_frame(frame: Frame) -> ReadDocument:
    """The document that `to_frame` was given."""
    document_id, uri = frame["document_id"], frame["uri"]
    if "reason" in frame:
        return ReadDocument(document_id, uri, Refused(frame["reason"], frame["detail"]), [], [])
    text = frame["text"]
    document = DocumentText(
        text, frame["media_type"], frame["title"], [Heading(*heading) for heading in frame["headings"]]
    )
    chunks = [
        Chunk(chunk_id, start, end, tokens, digest, header + text[start:end])
        for chunk_id, start, end, tokens, digest, header in frame["chunks"]
    ]
    return ReadDocument(
        document_id, uri, document, chunks, [DocumentSection(*section) for section in frame["sections"]]
    )
