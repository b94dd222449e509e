"""The stages of a job that summarizes, in order."""

from __future__ import annotations

from memorag_pipeline.runs.stage import Stage

_HERE = "memorag_pipeline.jobs.summaries"

PLAN = Stage("plan", f"{_HERE}.plan:plan_summaries", plan=f"{_HERE}.plans:SummariesPlan")
RECALL = Stage("recall", f"{_HERE}.recall:recall_key_points", planned_by=PLAN, kept_as="key_points", gpu=True)
GENERATE = Stage(
    "generate",
    f"{_HERE}.generate:summarize_parts",
    planned_by=PLAN,
    units="parts",
    kept_as="part_summary",
    gpu=True,
    counts=("input_tokens", "output_tokens"),
)
MERGE = Stage(
    "merge", f"{_HERE}.merge:merge_summaries", planned_by=PLAN, units="merges", kept_as="merged_summary", gpu=True
)
LOAD = Stage("load", f"{_HERE}.load:load_summaries", plan_of=PLAN, ends=True)
SUMMARIES = (PLAN, RECALL, GENERATE, MERGE, LOAD)
