"""The program of the reading process: the reader of documents, with the form in which sections are memorized.

In:  see `corpus/reader_server.py`, which serves.
Out: the same.
"""

from __future__ import annotations

from memorag_pipeline.corpus.reader_server import serve
from memorag_pipeline.memory.stream import render_section

if __name__ == "__main__":
    serve(render_section)
