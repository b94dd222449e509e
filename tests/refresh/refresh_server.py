"""Refreshes in processes that kill themselves: a program for `test_killed_refresh.py`.

In:  lines of JSON on stdin: a spec's file, a run id, and after which write to the store to kill the process, if at all.
Out: for each a line of JSON: the signal that ended the process (0: none), and how many writes it did.

Models' libraries are imported once, before the forks; nothing is computed there, so that the forks have no threads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas  # noqa: F401 - by pyarrow, when it makes an array
import torch
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert
import transformers.models.llama.modeling_llama  # noqa: F401

import memorag_pipeline.memory.kinds.full
import memorag_pipeline.memory.kinds.load
import memorag_pipeline.preflight
import memorag_pipeline.refresh.embed
import memorag_pipeline.refresh.extract
import memorag_pipeline.refresh.index
import memorag_pipeline.refresh.inventory
import memorag_pipeline.refresh.memorize
import memorag_pipeline.refresh.publish
import memorag_pipeline.refresh.shard
import memorag_pipeline.retrieval.embedder
import memorag_pipeline.retrieval.faiss_index  # noqa: F401
from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports import write as leave
from memorag_pipeline.runs.tasks import FOLDER
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.storage.backends.local import LocalObjects

_WRITES = ("create", "create_from_file", "put")


class _Counter:
    """Counts what is written to a local store, reports aside, and ends the process after write `last`."""

    def __init__(self, last: int | None) -> None:
        self.last, self.writes = last, 0
        self._lock = threading.Lock()

    def wrap(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """The same write, counted."""

        def counted(store: LocalObjects, path: str, *arguments: Any) -> Any:
            result = write(store, path, *arguments)
            if f"/{FOLDER}/" not in path:
                with self._lock:
                    self.writes += 1
                    if self.writes == self.last:
                        os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


def refresh(spec_file: str, run_id: str, last: int | None) -> int:
    """Refresh in this process; how many writes it took."""
    torch.set_num_threads(1)
    leave.leave_report = lambda *_: None
    counter = _Counter(last)
    for name in _WRITES:
        setattr(LocalObjects, name, counter.wrap(getattr(LocalObjects, name)))
    runner.refresh(Pipeline(read_spec(spec_file)), run_id)
    return counter.writes


def refresh_in_fork(order: dict[str, Any]) -> dict[str, int]:
    """Refresh in a separate process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, str(refresh(order["spec"], order["run_id"], order["last"])).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        writes = int(pipe.read() or order["last"] or 0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"signal": -ended, "writes": writes}


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        assert Path(order["spec"]).exists()
        print(json.dumps(refresh_in_fork(order)), flush=True)


if __name__ == "__main__":
    main()
