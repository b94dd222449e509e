"""Words for a load that did not work: what the database said, without the layers of its driver and without secrets."""

from __future__ import annotations

from collections.abc import Iterator

from memorag_pipeline.errors import MemoragError, WarehouseError


def load_failed(where: str, error: BaseException, tried: bool = False) -> MemoragError:
    """The error to show for a failed load: one of this package, or otherwise one with the message of the database.

    `where` describes the warehouse. `tried`: it was no load, but a trial before the work that makes the rows.
    """
    own = next((cause for cause in _causes(error) if isinstance(cause, MemoragError)), None)
    if own is None and tried:
        return WarehouseError(f"{where}: the tables cannot take the rows: {said(error)}\nCorrect that, and run again.")
    return own or WarehouseError(
        f"{where}: the load failed: {said(error)}\n"
        "Correct the cause and load again: rows change all together or not at all, and nothing is computed twice."
    )


def query_took_too_long(where: str, seconds: float, sql: str) -> str:
    """The message for a query that was stopped."""
    return f"{where}: the query took more than {seconds:g} s and was stopped; select less, or from a table\nin: {sql}"


def said(error: BaseException) -> str:
    """The message of the innermost cause of `error`, on one line."""
    *_, innermost = _causes(error)
    return " ".join(str(innermost).split()) or type(innermost).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
