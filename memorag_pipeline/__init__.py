"""Turn a corpus in object storage into a versioned memory, and answer from it in bulk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memorag_pipeline.errors import MemoragError
    from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
    from memorag_pipeline.version import Version, open_version

__version__ = "0.1.0"
__all__ = ["CorpusSpec", "MemoragError", "Version", "__version__", "open_version", "read_spec"]

_MODULES = {
    "CorpusSpec": "specs.corpus",
    "MemoragError": "errors",
    "Version": "version",
    "open_version": "version",
    "read_spec": "specs.corpus",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: Airflow imports this package each time it parses a DAG file."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
