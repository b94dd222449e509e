"""Words for a load that did not work: what the database said, without dlt's layers and without secrets."""

from __future__ import annotations

from memorag_pipeline.errors import WarehouseError


def load_failed(where: str, error: BaseException) -> WarehouseError:
    """The error to show for a load that failed; `where` describes the warehouse."""
    return WarehouseError(
        f"{where}: the load failed: {said(error)}\n"
        "Correct the cause and load again: rows change all together or not at all, and nothing is computed twice."
    )


def said(error: BaseException) -> str:
    """What the innermost cause of `error` said, on one line."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
