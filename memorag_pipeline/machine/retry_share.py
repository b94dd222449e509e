"""How much of the usual chunk a task works on at once: a retry takes half of the attempt before.

In:  the number of the attempt, from the operator; errors of the models at work.
Out: `shared`, which the places ask that choose how much is read or decoded together.
Wrong: an allocation that fails, on a GPU or in main memory, is a `ChunkTooLargeError`. Nothing else is changed.

By attempt, not by the error before: a worker that the kernel killed for lack of memory leaves no error. What is made
does not depend on the share, so it is in no fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from memorag_pipeline.errors import ChunkTooLargeError

_MOST_HALVINGS = 6
# By torch's allocators and by CUDA, cuBLAS and cuDNN outside of them.
_SAID = ("can't allocate memory", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
_halvings: ContextVar[int] = ContextVar("halvings", default=0)


@contextmanager
def share_of_attempt(attempt: int) -> Iterator[None]:
    """In this block chunks are those of an attempt (from 1): halved with each one after the first."""
    token = _halvings.set(min(max(attempt - 1, 0), _MOST_HALVINGS))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise ChunkTooLargeError(
            f"out of memory ({str(error).partition(chr(10))[0]}); the next attempt works on half as much at once. To"
            " begin with less, set memory.budget_mib or generation.batch_tokens"
        ) from error
    finally:
        _halvings.reset(token)


def shared(amount: int) -> int:
    """The share of `amount`, such as bytes or tokens, that is worked on at once: at least 1."""
    return max(amount >> _halvings.get(), min(amount, 1))


def lacks_memory(error: Exception) -> bool:
    """Whether an allocation failed. By name and text: torch is not imported for this."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(text in str(error) for text in _SAID)
