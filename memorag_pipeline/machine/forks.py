"""A process forked after models were loaded or indexes opened, as servers do that load before they start workers.

In:  the libraries whose threads or devices a parent has used.
Out: in the child they work, with one thread: the other threads are not there, and would be waited for without end.
Wrong: a GPU that the parent has used cannot be used by the child: a `MemoragError` that says what to do.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from memorag_pipeline.errors import MemoragError


@functools.cache
def one_thread_after_fork(set_threads: Callable[[int], object]) -> None:
    """Let a library compute in the thread that a forked child begins with; other threads of it start their own."""
    os.register_at_fork(after_in_child=lambda: set_threads(1))


def require_device() -> None:
    """Raise MemoragError when the models are on a GPU that the parent of this process has used before the fork."""
    if "torch" not in sys.modules:
        return
    import torch

    if torch.cuda._is_in_bad_fork():
        raise MemoragError(
            f"process {os.getpid()} was forked after models were loaded on the GPU, which CUDA does not allow; open the"
            " version after the fork (gunicorn: without preload), or start processes with spawn"
        )
