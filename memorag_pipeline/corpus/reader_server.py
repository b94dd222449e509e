"""The reading process: reads documents, so a crash, a hang or a bomb costs one document and not the task.

In:  on standard input one JSON line with the set-up ({"spec", "seconds"}), then one for each object: {"path",
     "document_id", "uri", "records", "first"}. The file at `path` holds its bytes; `records` says whether it is a file
     of records, which are read from number `first` on.
Out: frames on standard output, see `reader_frames.py`.
Wrong: an error in a document is its answer. Anything else ends the process; the reader of the pipe sees its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from memorag_pipeline.corpus.document_reader import ReadDocument, Reader, ReadingSpec, Render, Watch, refusal
from memorag_pipeline.corpus.reader_frames import MILLION, to_frame, write_frame

_MEMORY = 4 << 30
_GRACE = 10.0  # seconds for the process that keeps the time to end this one
_FEW = 100_000  # characters: for a shorter text, only the start of cutting is reported


def serve(render: Render) -> None:
    """Serve documents until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a parser's output must not get between the answers
    _limit_memory()
    setup = json.loads(sys.stdin.buffer.readline())
    watch = _Watch(answers, setup["seconds"])
    reader = Reader(ReadingSpec.model_validate(setup["spec"]), render, watch)
    write_frame(answers, {"ready": True})
    for line in sys.stdin.buffer:
        watch.allow(setup["seconds"])
        _serve(reader, answers, **json.loads(line))
        signal.alarm(0)


class _Watch(Watch):
    def __init__(self, answers: BinaryIO, seconds: float) -> None:
        self._answers, self._seconds = answers, seconds

    def allow(self, seconds: float) -> None:
        """End this process later than that, if the one that keeps the time is gone."""
        signal.alarm(int(min(seconds + _GRACE, 1 << 24)))

    def record(self, number: int, document_id: str, uri: str) -> None:
        self.allow(self._seconds)
        write_frame(self._answers, {"record": number, "document_id": document_id, "uri": uri})

    def cutting(self, done: int, of: int) -> None:
        if done == 0 or of > _FEW:
            self.allow(self._seconds * (1 + done / MILLION))
            write_frame(self._answers, {"done": done, "of": of})


def _serve(
    reader: Reader, answers: BinaryIO, path: str, document_id: str, uri: str, records: bool, first: int, **_: Any
) -> None:
    def answer(read: ReadDocument) -> None:
        try:
            write_frame(answers, to_frame(read), more=not records)
        except MemoryError as error:  # before anything was written
            write_frame(answers, to_frame(ReadDocument(read.document_id, read.uri, refusal(error), [], [])))

    try:
        data = Path(path).read_bytes()
    except MemoryError as error:
        answer(ReadDocument(document_id, uri, refusal(error), [], []))
    else:
        if records:
            for read in reader.records(document_id, uri, data, first):
                answer(read)
        else:
            answer(reader.document(document_id, uri, data))
    write_frame(answers, {"end": True})


def _limit_memory() -> None:
    """A document that expands without end fails in this process instead of bringing the machine down."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
