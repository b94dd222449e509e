"""Prompts out of a job to a file, and results of another program back in (`memorag answer --export-batch`).

In:  the work lists of a run whose generator is an endpoint; a file of lines in the format of OpenAI's Batch API.
Out: a file of requests, complete or absent; the generator that gives the file's replies as the endpoint's.
Wrong: another generator, a file without results, or one with the results of another export: `QuestionError`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from memorag_pipeline.errors import QuestionError
from memorag_pipeline.generators.batch_lines import line_of, not_in_results
from memorag_pipeline.generators.endpoint_client import no_key
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.offline import TakenReplies
from memorag_pipeline.generators.open import token_count
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.generators.results_file import Taken, take_results
from memorag_pipeline.jobs.answers.answerer import prompts_of
from memorag_pipeline.jobs.answers.plans import GenerateList
from memorag_pipeline.machine.files import written
from memorag_pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)


def export_prompts(pipeline: Pipeline, work_lists: Sequence[str], path: Path) -> int:
    """Write the prompts of a run that have no reply; returns how many there are."""
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        for uri in work_lists:
            batch = pipeline.read_work(uri, GenerateList)
            for prompts in prompts_of(pipeline, batch, ReplyUnits(pipeline.store, batch.run)):
                file.writelines(line_of(batch.settings.generation, each.key, each.body) for each in prompts)
                count += len(prompts)

    try:
        with written(path, write, 0o600) as part:
            part.replace(path)
    except OSError as error:
        raise QuestionError(f"{path}: the prompts cannot be written: {error.strerror or error}") from None
    return count


def replies_in(pipeline: Pipeline, batch: GenerateList, path: str) -> Generator:
    """The replies in a file, which are kept as if the endpoint had sent them."""
    generation = batch.settings.generation
    count = token_count(generation, batch.settings.memory)
    replies = ReplyUnits(pipeline.store, batch.run)
    # Also prompts that have a reply: a second import of a file is not one of another export.
    prompts = {prompt.key: prompt.tokens for part in prompts_of(pipeline, batch, None) for prompt in part}
    taken = Taken()
    try:
        take_results(Path(path), generation, no_key(), prompts, count, replies, taken)
    except OSError as error:
        raise QuestionError(f"{path}: the results cannot be read: {error.strerror or error}") from None
    _check(path, batch, prompts, taken)
    return TakenReplies(generation, count, replies, taken.failures, not_in_results(f"{path} has no line for it"))


def _check(path: str, batch: GenerateList, prompts: dict[str, int], taken: Taken) -> None:
    here = f"job {batch.job} over version {batch.version}"
    matched = len(taken.answered) + len(taken.failures)
    if not matched and prompts:
        raise QuestionError(
            f"{path}: none of its {taken.lines:,} lines answers a prompt of {here}; it holds the results of another"
            " export, or is not a file of batch results. Prompts depend on version, questions and settings: import the"
            " file with those of its export (--version)"
        )
    if taken.unknown or taken.damaged:
        logger.warning(
            "%s: %s lines answer other prompts than those of %s, %s are damaged; they are left out",
            path,
            taken.unknown,
            here,
            taken.damaged,
        )
