"""Airflow operators of the MemoRAG pipeline, imported when used: Airflow loads this package at every start."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "InventoryOperator": "refresh",
    "ExtractOperator": "refresh",
    "ShardOperator": "refresh",
    "MemorizeOperator": "refresh",
    "EmbedOperator": "refresh",
    "IndexOperator": "refresh",
    "PublishOperator": "refresh",
    "RecordOperator": "refresh",
    "version_asset": "refresh",
    "EvaluateVersionOperator": "evaluate",
    "PromoteVersionOperator": "evaluate",
    "RouteOperator": "answers",
    "RecallOperator": "answers",
    "GenerateOperator": "answers",
    "LoadOperator": "answers",
    "PlanSummariesOperator": "summaries",
    "RecallKeyPointsOperator": "summaries",
    "SummarizeOperator": "summaries",
    "MergeSummariesOperator": "summaries",
    "LoadSummariesOperator": "summaries",
    "VersionRangeOperator": "backfill",
    "RetireOperator": "maintenance",
    "SweepOperator": "maintenance",
    "VerifySampleOperator": "maintenance",
    "PrepareTrainingOperator": "training",
    "StudyOperator": "training",
    "TrainOperator": "training",
    "EvaluateOperator": "training",
    "RegisterOperator": "training",
    "PromoteOperator": "training",
    "WorkListOperator": "work_list",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
