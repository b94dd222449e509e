"""Packages that only some installations have: what reads needs few of them, what writes needs all.

In:  what is to be imported.
Out: nothing, if it is installed.
Wrong: a package that is not installed is a `MissingDependencyError` that names it and the extra that brings it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from memorag_pipeline.errors import MissingDependencyError

# Modules of the extra `reader`, and of `pipeline`, which is part of `cpu` and `gpu`.
READER = ("faiss",)
PIPELINE = (
    "adbc_driver_postgresql",
    "chardet",
    "compressed_rtf",
    "duckdb",
    "html_to_markdown",
    "lxml",
    "mammoth",
    "matplotlib",
    "olefile",
    "pypdfium2",
    "rouge_score",
    "semantic_text_splitter",
    "xlrd",
    "xlsxwriter",
)
_PIPELINE_EXTRA = "[cpu]', or [gpu] on a machine with an NVIDIA GPU"
_READER_EXTRA = "[reader]' to read a version, [cpu] or [gpu] to make one"


def require_pipeline() -> None:
    """Raise MissingDependencyError where a package is missing that any stage needs.

    Else hours of models would be lost to a writer that cannot be imported, and a document would count as damaged for
    lack of its reader.
    """
    require_packages(*READER, *PIPELINE)


def require_packages(*modules: str) -> None:
    """Raise MissingDependencyError unless all of these modules are installed; none is imported."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise _missing(missing)


@contextmanager
def named_packages() -> Iterator[None]:
    """Raise a failed import of such a package as MissingDependencyError."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        if module not in (*READER, *PIPELINE):
            raise
        raise _missing([module]) from error


def _missing(modules: list[str]) -> MissingDependencyError:
    extra = _READER_EXTRA if set(modules) <= set(READER) else _PIPELINE_EXTRA
    are = "is" if len(modules) == 1 else "are"
    return MissingDependencyError(
        f"{', '.join(modules)} {are} not installed here; pip install 'memorag-pipeline{extra}"
    )
