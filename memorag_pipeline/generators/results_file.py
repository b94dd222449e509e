"""A file of batch results, taken into the kept replies.

In:  a file of lines, of which any may be damaged, unknown or given twice; the prompts that were sent.
Out: replies are recorded as if an endpoint had sent them; failures by key; counts of the lines.
Wrong: nothing is raised for a line; an `OSError` of the file is.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from memorag_pipeline.generators.batch_lines import LONGEST_LINE, LineError, Result, result_of
from memorag_pipeline.generators.endpoint_client import Key
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import Replies
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.specs.generation import GenerationSpec

logger = logging.getLogger(__name__)

_AT_ONCE = 256
_SHOWN = 5


@dataclass
class Taken:
    """What the lines held: `answered` are keys with a recorded reply, `failures` the errors of others."""

    answered: set[str] = field(default_factory=set)
    failures: dict[str, Reply] = field(default_factory=dict)
    unknown: int = 0
    damaged: int = 0

    @property
    def lines(self) -> int:
        """Lines that were read, except empty ones and repeated ones."""
        return len(self.answered) + len(self.failures) + self.unknown + self.damaged


def take_results(
    path: Path,
    spec: GenerationSpec,
    key: Key,
    prompts: Mapping[str, int],
    count: Callable[[str], int],
    replies: Replies,
    taken: Taken,
) -> None:
    """Read a file; of several lines with a key the first answer counts. Adds to `taken`."""

    def results() -> Iterator[Result]:
        for number, line in enumerate(_lines(path), 1):
            try:
                found = result_of(line, spec, key, prompts, count)
            except LineError as problem:
                taken.damaged += 1
                if taken.damaged <= _SHOWN:
                    logger.warning("%s, line %s is no result: %s", path.name, number, problem)
                continue
            if found is None:
                taken.unknown += 1
            else:
                yield found

    found = results()
    while part := list(itertools.islice(found, _AT_ONCE)):
        new: dict[str, Reply] = {}
        for result in part:
            if result.key in taken.answered or result.key in new:
                continue
            if result.completed:
                new[result.key] = result.reply
            else:
                taken.failures.setdefault(result.key, result.reply)
        in_threads(lambda item: replies.record(*item), new.items())
        taken.answered.update(new)
        for key_of_answer in new:
            taken.failures.pop(key_of_answer, None)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            too_long = len(line) > LONGEST_LINE
            rest = line
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 1)
            if too_long or line.strip():
                yield line
