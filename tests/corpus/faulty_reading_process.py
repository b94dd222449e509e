"""A reading process in which words of a document do what a fault in a parser, splitter or tokenizer would do."""

from __future__ import annotations

import os
import re
import signal

from memorag_pipeline.corpus.reader_server import serve


def render(uri: str, title: str, text: str) -> str:
    """As sections are rendered, but for the words of faults."""
    if "HANG" in text:
        re.match("(a*)*$", "a" * 60 + "b")  # in C, without end, and without letting another thread run
    if "DIE" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "LEAVE" in text:
        os._exit(3)
    if "DEEP" in text:
        return render(uri, title, text)
    if "MEMORY" in text:
        raise MemoryError
    if "FAIL" in text:
        raise TypeError("a bug")
    return text


if __name__ == "__main__":
    serve(render)
