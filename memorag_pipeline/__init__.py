"""Turn a corpus in object storage into a versioned memory, and answer from it in bulk.

These are the public names: what a service that asks a version needs. They are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memorag_pipeline.errors import (
        ArgumentError,
        ContextLengthError,
        CorruptBlobError,
        EndpointError,
        EndpointRefusedError,
        MemoragError,
        MemoryConfigError,
        MemoryMismatchError,
        MissingDependencyError,
        ModelError,
        NotFoundError,
        RetiredVersionError,
        SpecError,
        SpecProblem,
        StorageError,
        UntrustedReferenceError,
    )
    from memorag_pipeline.jobs.answers.answer import Answer, Clue, Recollection
    from memorag_pipeline.jobs.summaries.summary import Summary
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
    from memorag_pipeline.specs.generation import EndpointSpec, GenerationSpec, PricesSpec
    from memorag_pipeline.version import Version, open_version

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "ArgumentError",
    "Clue",
    "ContextLengthError",
    "CorpusSpec",
    "CorruptBlobError",
    "EndpointError",
    "EndpointRefusedError",
    "EndpointSpec",
    "GenerationSpec",
    "MemoragError",
    "MemoryConfigError",
    "MemoryMismatchError",
    "MissingDependencyError",
    "ModelError",
    "NotFoundError",
    "Passage",
    "PricesSpec",
    "Recollection",
    "RetiredVersionError",
    "SpecError",
    "SpecProblem",
    "StorageError",
    "Summary",
    "UntrustedReferenceError",
    "Version",
    "__version__",
    "open_version",
    "read_spec",
]

_MODULES = {
    "errors": (
        "ArgumentError",
        "ContextLengthError",
        "CorruptBlobError",
        "EndpointError",
        "EndpointRefusedError",
        "MemoragError",
        "MemoryConfigError",
        "MemoryMismatchError",
        "MissingDependencyError",
        "ModelError",
        "NotFoundError",
        "RetiredVersionError",
        "SpecError",
        "SpecProblem",
        "StorageError",
        "UntrustedReferenceError",
    ),
    "jobs.answers.answer": ("Answer", "Clue", "Recollection"),
    "jobs.summaries.summary": ("Summary",),
    "retrieval.passage": ("Passage",),
    "specs.corpus": ("CorpusSpec", "read_spec"),
    "specs.generation": ("EndpointSpec", "GenerationSpec", "PricesSpec"),
    "version": ("Version", "open_version"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first access: Airflow imports this package each time it parses a DAG file."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
