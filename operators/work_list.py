"""Hands on a list that a stage returned beside its return value, so that tasks can be mapped over it.

In:  a list from an XCom.
Out: the same list as return value.

An empty list skips the mapped tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class WorkListOperator(BaseOperator):
    """Return `batches`. Airflow refuses to map over an XCom that is not a return value.

    :param batches: URIs of work lists, e.g. `shard.output["embed"]` (templated).
    """

    template_fields: Sequence[str] = ("batches",)

    def __init__(self, *, batches: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches = batches

    def execute(self, context: Context) -> list[str]:
        """Return the list."""
        return self.batches
