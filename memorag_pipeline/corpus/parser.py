"""Parsing documents in a process of its own, with a time limit.

In:  the bytes of a document and its media type.
Out: its text, title and headings; or the records of an XML file.
Wrong: a document that the parser refuses, that takes too long or that kills the process: `Refused`. The process is
       started when it is needed, kept for the next document, and replaced after a timeout or a crash.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memorag_pipeline.corpus.quarantine import Refused

_START_SECONDS = 120.0
_WORKER = Path(__file__).with_name("parser_process.py")


@dataclass(frozen=True)
class Parsed:
    """What a parser found: the text, a title from the metadata, headings as (level, words) in order."""

    text: str
    title: str | None
    headings: list[tuple[int, str]]


class Parser:
    """A parser process; a context manager that ends it. Not to be shared between threads."""

    def __init__(self, timeout_seconds: float, max_pages: int = 5000) -> None:
        self._timeout, self._pages = timeout_seconds, max_pages
        self._folder = TemporaryDirectory(prefix="memorag-parse-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Parser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._folder.cleanup()

    @property
    def process_id(self) -> int | None:
        """Id of the running process, None when there is none."""
        return self._process.pid if self._process else None

    def parse(self, data: bytes, media_type: str) -> Parsed:
        """Parse one document. Raises Refused, such as unreadable, password, too_many_pages, bomb, timeout, crashed."""
        answer = self._ask(data, media_type, None)
        return Parsed(answer["text"], answer["title"], [(level, words) for level, words in answer["headings"]])

    def records(self, data: bytes, element: str) -> list[Any]:
        """The elements of that name (empty: the root's children) of an XML file in UTF-8, as values like JSON's."""
        found: list[Any] = self._ask(data, "application/xml", element)["records"]
        return found

    def _ask(self, data: bytes, media_type: str, records: str | None) -> dict[str, Any]:
        process = self._process
        if process is None or process.poll() is not None:  # died while idle: not this document's fault
            self._stop()
            process = self._start()
        path = Path(self._folder.name) / "document"
        path.write_bytes(data)
        request = {
            "path": str(path),
            "media_type": media_type,
            "seconds": self._timeout,
            "pages": self._pages,
            "records": records,
        }
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = self._read(process, self._timeout)
        except TimeoutError:
            self._stop()
            raise Refused("timeout", f"took longer than {self._timeout:g} s (source.timeout_seconds)") from None
        except (EOFError, BrokenPipeError):
            raise Refused("crashed", f"the parser's process died ({self._stop()})") from None
        if "reason" in answer:
            raise Refused(answer["reason"], answer["detail"])
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process. Popen, because an Airflow task may be daemonic and then cannot use multiprocessing."""
        # By path, without the folder of the script on sys.path (-P): nothing of this package is imported.
        command = [sys.executable, "-P", str(_WORKER)]
        process = self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            self._read(process, _START_SECONDS)
        except (EOFError, TimeoutError):
            raise RuntimeError(
                f"the parser's process does not start ({self._stop()}); see {' '.join(command)}"
            ) from None
        return process

    def _stop(self) -> str:
        """End the process and say how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "not running"
        died = process.poll()
        process.kill()
        process.communicate()
        if died is None:
            return "killed"
        return f"signal {signal.Signals(-died).name}" if died < 0 else f"exit code {died}"

    @staticmethod
    def _read(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """The next answer. Raises TimeoutError, or EOFError at the end of the process."""
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        received, wanted = bytearray(), None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while wanted is None or len(received) < wanted:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece:
                    process.wait(seconds)
                    raise EOFError
                received += piece
                if wanted is None and len(received) >= 8:
                    wanted = 8 + int.from_bytes(received[:8], "big")
        answer: dict[str, Any] = json.loads(bytes(received[8:]))
        return answer
