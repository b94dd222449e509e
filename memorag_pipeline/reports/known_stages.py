"""All stages whose tasks leave reports. Stages of the same name are alike in all kinds of jobs."""

from __future__ import annotations

from memorag_pipeline.jobs.answers.stages import ANSWERS
from memorag_pipeline.jobs.summaries.stages import SUMMARIES
from memorag_pipeline.refresh.stages import GATE, RECORD, REFRESH

STAGES = {stage.name: stage for stage in (*REFRESH, *GATE, RECORD, *ANSWERS, *SUMMARIES)}
