"""Reading documents in a separate process, with a time limit.

In:  source objects and their bytes.
Out: their documents, with chunks and sections.
Wrong: nothing is raised for a document. One that takes too long or kills the process is a `Refused` value, and the
       process is replaced. In a file of records, only the record at fault is refused, and reading resumes after it.

The process is started when needed and kept for the next document. Reading a document (unpacking, decoding, parsing) may
take `timeout_seconds`; cutting it into chunks as long, and as long again for each million characters done: so a large
text gets the time that it needs, and one that the splitter chokes on is stopped early. The records of a file have four
times `timeout_seconds` together, and as much as one of them for each million characters done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from memorag_pipeline.corpus.document_reader import ReadDocument, ReadingSpec
from memorag_pipeline.corpus.quarantine import Reason, Refused
from memorag_pipeline.corpus.reader_frames import MILLION, Frame, FrameReader, from_frame

_START_SECONDS = 120.0
_END_SECONDS = 10.0  # between the end of the pipe and that of the process
_SPARE = 4  # times the limit for all records of a file, beyond the allowance for their length


class ReaderProcess:
    """A reading process that runs `module`; a context manager that ends it. Not thread-safe."""

    def __init__(self, spec: ReadingSpec, timeout_seconds: float, module: str) -> None:
        self._spec, self._timeout, self._module = spec, timeout_seconds, module
        self._folder = TemporaryDirectory(prefix="memorag-read-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ReaderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._folder.cleanup()

    @property
    def process_id(self) -> int | None:
        """Id of the running process, None if there is none."""
        return self._process.pid if self._process else None

    def document(self, document_id: str, uri: str, data: bytes) -> ReadDocument:
        """The object as one document."""
        self._document_path.write_bytes(data)
        request = {"document_id": document_id, "uri": uri, "records": False, "first": 0}
        try:
            (frame,) = self._answers(request)
        except Refused as refused:
            return ReadDocument(document_id, uri, refused, [], [])
        return from_frame(frame)

    def records(self, document_id: str, uri: str, data: bytes) -> Iterator[ReadDocument]:
        """The records of the object; the object itself if it does not hold records, or more than time allows."""
        self._document_path.write_bytes(data)
        self._running()  # its start does not count for the records
        started, characters, first = time.monotonic(), 0, 0
        while True:
            at_work: Frame | None = None
            request = {"document_id": document_id, "uri": uri, "records": True, "first": first}
            try:
                with closing(self._answers(request)) as answers:
                    for frame in answers:
                        if "record" in frame:
                            allowed = self._timeout * (_SPARE + characters / MILLION)
                            if time.monotonic() - started > allowed:
                                late = f"its records took longer than {allowed:g} s (source.timeout_seconds) together"
                                yield ReadDocument(document_id, uri, _cut_short("timeout", late, first), [], [])
                                return
                            at_work, first = frame, frame["record"] + 1
                            continue
                        at_work = None
                        characters += len(frame.get("text", ""))
                        yield from_frame(frame)
                return
            except Refused as refused:
                if at_work is None:  # between two records, or before the first: reading cannot resume
                    refused = _cut_short(refused.reason, refused.detail, first)
                    yield ReadDocument(document_id, uri, refused, [], [])
                    return
                yield ReadDocument(at_work["document_id"], at_work["uri"], refused, [], [])

    @property
    def _document_path(self) -> Path:
        return Path(self._folder.name) / "document"

    def _answers(self, request: Frame) -> Generator[Frame]:
        """The frames for one object that hold a document or announce a record. Raises Refused: timeout, crashed."""
        process, frames = self._running()
        clock, ended = _Clock(self._timeout), False
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps({**request, "path": str(self._document_path)}).encode() + b"\n")
            process.stdin.flush()
            while not (ended := "end" in (frame := frames.read(clock.deadline))):
                clock.see(frame)
                if "document_id" in frame:
                    yield frame
                    clock.restart()
        except TimeoutError:
            raise Refused("timeout", clock.late()) from None
        except (EOFError, BrokenPipeError):
            raise Refused("crashed", f"the reading process died of it ({self._stop(_END_SECONDS)})") from None
        finally:
            if not ended:
                self._stop()

    def _running(self) -> tuple[subprocess.Popen[bytes], FrameReader]:
        """The process, started if there is none, and its frames."""
        if self._process is None or self._process.poll() is not None:  # died while idle: not this document's fault
            self._stop()
            self._process, self._frames = self._start()
        return self._process, self._frames

    def _start(self) -> tuple[subprocess.Popen[bytes], FrameReader]:
        """Start a process. Popen, because an Airflow task may be daemonic and then cannot use multiprocessing."""
        command = [sys.executable, "-P", "-m", self._module]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._folder.name},  # what a killed process leaves is removed with the folder
        )
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        frames = FrameReader(process.stdout)
        try:
            setup = {"spec": self._spec.model_dump(mode="json"), "seconds": self._timeout}
            process.stdin.write(json.dumps(setup).encode() + b"\n")
            process.stdin.flush()
            frames.read(time.monotonic() + _START_SECONDS)
        except (EOFError, BrokenPipeError, TimeoutError):
            ended = self._stop(_END_SECONDS)
            raise RuntimeError(f"the reading process does not start ({ended}); see {' '.join(command)}") from None
        return process, frames

    def _stop(self, seconds: float = 0) -> str:
        """End the process, after giving it this long to end by itself, and say how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "not running"
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        died = process.returncode
        process.kill()
        process.communicate()
        if died is None:
            return "killed"
        return f"signal {signal.Signals(-died).name}" if died < 0 else f"exit code {died}"


class _Clock:
    """The current step of the reading process, and its deadline."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.restart()

    def restart(self) -> None:
        """Reading begins."""
        self._started, self._done, self._of = time.monotonic(), 0, None

    def see(self, frame: Frame) -> None:
        """It reported its step."""
        if "done" in frame:
            if self._of is None:
                self._started = time.monotonic()
            self._done, self._of = frame["done"], frame["of"]

    @property
    def _limit(self) -> float:
        return self._timeout * (1 + self._done / MILLION)

    @property
    def deadline(self) -> float:
        """Deadline of the current step, by the monotonic clock."""
        return self._started + self._limit

    def late(self) -> str:
        """What took too long."""
        took = f"took longer than {self._limit:g} s (source.timeout_seconds)"
        if self._of is None:
            return f"reading it {took}"
        return f"cutting it into chunks {took} behind character {self._done:,} of {self._of:,}"


def _cut_short(reason: Reason, detail: str, first: int) -> Refused:
    """The refusal of a file of records whose records before number `first` were read."""
    return Refused(reason, f"{detail}; record {first} and those after it are left out" if first else detail)
