"""The stages of a job that answers questions, in order."""

from __future__ import annotations

from memorag_pipeline.runs.stage import Stage

_HERE = "memorag_pipeline.jobs.answers"

ROUTE = Stage("route", f"{_HERE}.route:route", plan=f"{_HERE}.plans:AnswersPlan")
RECALL = Stage("recall", f"{_HERE}.recall:recall", planned_by=ROUTE, gpu=True)
GENERATE = Stage(
    "generate",
    f"{_HERE}.generate:generate",
    planned_by=ROUTE,
    units="batches",
    gpu=True,
    counts=("input_tokens", "output_tokens"),
)
LOAD = Stage("load", f"{_HERE}.load:load", plan_of=ROUTE, ends=True)
ANSWERS = (ROUTE, RECALL, GENERATE, LOAD)
