"""Turn a corpus in object storage into a versioned memory, and answer from it in bulk."""

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.spec import CorpusSpec, read_spec

__version__ = "0.1.0"
__all__ = ["CorpusSpec", "MemoragError", "__version__", "read_spec"]
