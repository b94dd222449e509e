"""The prompts of a run through a Batch API: sent once, waited for, taken into the kept replies.

In:  prompts without a reply, in parts; the id of the run.
Out: replies as units, as if the endpoint had been asked directly; the failures of the others by key.
Wrong: see `BatchClient`. A question that the server failed, let expire or never answered is a `Reply` with that error.

Every step can be repeated, by the same run after a kill or by another run: see `batch_units`.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from memorag_pipeline.errors import EndpointError, EndpointRefusedError
from memorag_pipeline.generators.batch_client import BatchClient, BatchState
from memorag_pipeline.generators.batch_lines import line_of, not_in_results
from memorag_pipeline.generators.batch_units import Batch, BatchUnits
from memorag_pipeline.generators.budget import Budget, Spending, Usage, cost_of
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.offline import Prompt
from memorag_pipeline.generators.replies import Replies
from memorag_pipeline.generators.results_file import Taken, take_results
from memorag_pipeline.progress import track
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.storage import CorpusStore

logger = logging.getLogger(__name__)

_OVERDUE = 2  # windows after which a batch that has not ended is not waited for
_FAILURES = 10  # looks in succession that fail, after which a wait in process is given up
_HOURS = {"h": 1, "d": 24}


class Batches:
    """The batches that one run waits for; `labels` are shown beside them in the provider's console."""

    def __init__(self, spec: GenerationSpec, store: CorpusStore, run: str, labels: Mapping[str, str]) -> None:
        assert spec.endpoint is not None and spec.endpoint.batch is not None
        self._spec, self._endpoint, self._batch = spec, spec.endpoint, spec.endpoint.batch
        self._store, self._run, self._labels = store, run, labels
        self._units = BatchUnits(store, spec.endpoint.url)
        self._client = BatchClient(spec)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def send(self, prompts: Callable[[], Iterable[Sequence[Prompt]]], spent: Spending) -> list[Batch]:
        """Send what this run has to send, if it has not; `prompts` gives those without a reply, some at a time.

        Prompts that wait in a batch of any run are not sent again. What the budget has no room for is not sent.
        """
        names = self._units.of_run(self._run)
        if names is None:
            names = self._plan(prompts(), Budget(self._endpoint, spent))
            found = [self._sent(name) for name in names]
            self._units.record_run(self._run, names)
            return found
        return [self._sent(name) for name in names]

    def of_run(self) -> list[Batch]:
        """The batches that this run waits for, without sending anything."""
        found = (self._units.find(name) for name in self._units.of_run(self._run) or ())
        return [batch for batch in found if batch is not None and batch.sent is not None]

    def states(self, batches: Sequence[Batch]) -> dict[str, BatchState]:
        """The state of each batch whose results are not taken yet. Raises EndpointError for one that never ends."""
        states = self._states(batches)
        self._check_overdue(batches, states)
        return states

    def wait(self, batches: Sequence[Batch], sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until all batches have ended, with progress. A server that is away for a while is waited for."""
        total = sum(len(batch.prompts) for batch in batches)
        with track("questions answered in batches", total, "questions") as bar:
            shown, failed = 0, 0
            while True:
                try:
                    states = self._states(batches)
                except EndpointError as error:
                    failed += 1
                    if isinstance(error, EndpointRefusedError) or failed >= _FAILURES:
                        raise
                    logger.warning("the batches cannot be looked at now: %s", error)
                    sleep(self._batch.poll_seconds)
                    continue
                failed = 0
                done = total - sum(len(batch.prompts) for batch in batches if batch.name in states)
                done = min(done + sum(state.done for state in states.values()), total)
                bar.advance(max(done - shown, 0))
                shown = max(shown, done)
                if all(state.ended for state in states.values()):
                    return
                self._check_overdue(batches, states)
                sleep(self._batch.poll_seconds)

    def take(self, batches: Sequence[Batch], count: Callable[[str], int], replies: Replies) -> dict[str, Reply]:
        """Record the replies of batches that have ended; returns the failures of all other prompts, by key."""
        failures: dict[str, Reply] = {}
        for batch in batches:
            failures.update(self._taken(batch, count, replies))
        return failures

    def not_sent(self, batches: Sequence[Batch], spent: Spending) -> Reply:
        """The reply to a prompt that is in no batch."""
        if self._endpoint.budget_tokens is None and self._endpoint.budget_cost is None:
            return not_in_results("its prompt is in no batch of this run: its passages were found in another order")
        return Reply("", 0, 0, Budget(self._endpoint, _sum(spent, batches)).refusal(), retryable=True)

    def _plan(self, prompts: Iterable[Sequence[Prompt]], budget: Budget) -> list[str]:
        """Plan batches for what waits in none; gives the names of these, and of those that others wait in."""
        names: dict[str, None] = {}
        known: dict[str, Batch | None] = {}
        planner = _Planner(self._spec, self._units)
        waiting: set[str] = set()
        with tempfile.TemporaryDirectory() as folder:
            planner.open(Path(folder))
            for part in prompts:
                asked = self._units.asked([prompt.key for prompt in part if prompt.key not in waiting])
                for name in dict.fromkeys(asked.values()):
                    if name in known:
                        continue
                    batch = known[name] = self._units.find(name)
                    if batch is not None and batch.failures is None:
                        names[name] = None
                        waiting.update(batch.prompts)  # of a plan that was interrupted not all name it
                        budget.note(Spending(batch.tokens, batch.cost))
                for prompt in part:
                    if prompt.key in waiting or prompt.key in planner.prompts:
                        continue
                    most = most_of(self._spec, prompt)
                    if budget.take(most):
                        names.update(dict.fromkeys(planner.add(prompt, most, asked.get(prompt.key))))
            names.update(dict.fromkeys(planner.close()))
        return list(names)

    def _sent(self, name: str) -> Batch:
        """The batch with its id; it is sent if it never was."""
        batch = self._units.find(name)
        if batch is None:
            raise EndpointError(
                f"the record of batch {name[:16]} was swept; run the job again, which asks what is missing"
            )
        if batch.sent is not None:
            return batch
        path = self._store.blobs.open_file(batch.lines, "the prompts of a batch")
        return self._units.sent(batch, self._client.submit(batch.name, path, batch.since, self._labels))

    def _taken(self, batch: Batch, count: Callable[[str], int], replies: Replies) -> Mapping[str, Reply]:
        if batch.failures is not None:
            return batch.failures
        state = self._client.state(batch.id)
        if not state.ended:
            raise EndpointError(
                f"{self._endpoint.url}: batch {batch.id} has not ended ({state.status}); run the job again"
            )
        found = Taken()
        with tempfile.TemporaryDirectory() as folder:
            for number, file_id in enumerate(state.files):
                path = Path(folder) / f"results-{number}.jsonl"
                try:
                    self._client.download(file_id, path)
                except EndpointRefusedError:
                    # Another run may have taken the results, and deleted their files.
                    now = self._units.find(batch.name)
                    if now is None or now.failures is None:
                        raise
                    return now.failures
                take_results(path, self._spec, self._client.key, batch.prompts, count, replies, found)
        if found.unknown or found.damaged:
            lines = f"{found.unknown:,} lines of other questions, {found.damaged:,} damaged ones"
            logger.warning("the results of batch %s have %s; they are left out", batch.id, lines)
        missing = set(batch.prompts) - found.answered - set(found.failures)
        why = f"batch {batch.id} is {state.status}, and did not answer this question"
        lost = not_in_results(f"{why}: {state.why}" if state.why else why)
        failures = {**found.failures, **dict.fromkeys(missing, lost)}
        self._units.taken(batch, failures)
        if not self._batch.keep_files:
            self._client.forget(state)
        return failures

    def _states(self, batches: Sequence[Batch]) -> dict[str, BatchState]:
        return {batch.name: self._client.state(batch.id) for batch in batches if batch.failures is None}

    def _check_overdue(self, batches: Sequence[Batch], states: Mapping[str, BatchState]) -> None:
        for batch in batches:
            state = states.get(batch.name)
            if state is not None and not state.ended and self._is_overdue(batch):
                raise EndpointError(
                    f"{self._endpoint.url}: batch {batch.id} is {state.status} long after its {self._batch.window};"
                    " cancel it there, and run the job again, which takes what it has answered"
                )

    def _is_overdue(self, batch: Batch) -> bool:
        assert batch.sent is not None
        hours = int(self._batch.window[:-1]) * _HOURS[self._batch.window[-1]]
        return time.time() - batch.sent[1] > _OVERDUE * hours * 3600


class _Planner:
    """Cuts prompts into batches, in order."""

    def __init__(self, spec: GenerationSpec, units: BatchUnits) -> None:
        assert spec.endpoint is not None and spec.endpoint.batch is not None
        self._spec, self._units, self._batch = spec, units, spec.endpoint.batch
        self.prompts: dict[str, int] = {}
        self._after: list[str] = []
        self._most = Spending()
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._bytes = 0

    def open(self, folder: Path) -> None:
        """Where files of prompts are written before they are stored."""
        self._path = folder / "prompts.jsonl"

    def add(self, prompt: Prompt, most: Spending, before: str | None) -> list[str]:
        """Add a prompt, which was in the batch `before`; gives the name of a batch that is full without it."""
        assert self._path is not None
        line = line_of(self._spec, prompt.key, prompt.body)
        full = len(self.prompts) >= self._batch.requests or self._bytes + len(line) > self._batch.megabytes * 1_000_000
        names = self.close() if full and self.prompts else []
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(line)
        self._bytes += len(line)
        self.prompts[prompt.key] = prompt.tokens
        self._most = self._most.plus(most)
        if before is not None:
            self._after.append(before)
        return names

    def close(self) -> list[str]:
        """The name of the open batch, if it has prompts, which is planned now."""
        if self._file is None:
            return []
        assert self._path is not None
        self._file.close()
        batch = self._units.plan(self.prompts, self._after, self._most.tokens, self._most.cost, self._path)
        self._file, self._bytes, self.prompts, self._after, self._most = None, 0, {}, [], Spending()
        return [batch.name]


def most_of(spec: GenerationSpec, prompt: Prompt) -> Spending:
    """The most that a prompt in a batch can use."""
    assert spec.endpoint is not None
    usage = Usage(prompt.tokens, spec.max_new_tokens)
    return Spending(usage.tokens, cost_of(usage, spec.endpoint.batch_prices) or 0.0)


def _sum(spent: Spending, batches: Sequence[Batch]) -> Spending:
    for batch in batches:
        spent = spent.plus(Spending(batch.tokens, batch.cost))
    return spent
