"""What was sent to a Batch API, as units: nothing is asked twice, and nothing that is paid for is lost.

In:  prompts with their keys; ids and results of batches.
Out: for each prompt the batch that it is in; for each batch its requests, its id, its failures.
Wrong: what the store raises.

A batch is recorded three times under one name: planned, before anything is sent; sent, with its id, before the wait;
taken, when its replies are units and its failures are known. Each of its prompts names it before it is sent. The name
is the digest of its prompts, and of the batches that they were in before, so a repeated task and a second scheduler
come to the same name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage import BlobRef, CorpusStore, Outcome, fingerprint

ASKED, BATCH, RUN = "asked", "provider_batch", "batched_run"
STAGE_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """A batch: `prompts` are the tokens of each prompt by key, `tokens` and `cost` the most it can use.

    `sent` is its id and when that was recorded; `failures` are known when its results are taken.
    """

    name: str
    since: float
    prompts: Mapping[str, int]
    tokens: int
    cost: float
    lines: BlobRef
    sent: tuple[str, float] | None = None
    failures: Mapping[str, Reply] | None = None

    @property
    def id(self) -> str:
        """The server's name for it."""
        assert self.sent is not None
        return self.sent[0]


class BatchUnits:
    """The batches of a corpus."""

    def __init__(self, store: CorpusStore, url: str) -> None:
        self._store, self._url = store, url

    def asked(self, keys: Sequence[str]) -> dict[str, str]:
        """The name of the newest batch of each prompt that was in one."""
        outcomes = self._store.units.find_all(ASKED, [self._key(ASKED, key) for key in keys])
        found = {key: each.blobs["batch"] for key, each in zip(keys, outcomes, strict=True) if each is not None}
        refs = list(dict.fromkeys(found.values()))
        names = dict(zip(refs, in_threads(self._named, refs), strict=True))
        return {key: names[ref] for key, ref in found.items()}

    def plan(self, prompts: Mapping[str, int], after: Sequence[str], tokens: int, cost: float, lines: Path) -> Batch:
        """A batch of prompts that were in the batches `after` before, recorded before anything is sent."""
        name = fingerprint(
            BATCH, STAGE_VERSION, url=self._url, prompts=sorted(prompts), after=sorted(dict.fromkeys(after))
        )
        found = self.find(name)
        if found is None:
            ref = self._store.blobs.put_file(lines)
            found = Batch(name, time.time(), dict(prompts), tokens, cost, ref)
            self._record(found)
        self._name(found)
        return found

    def find(self, name: str) -> Batch | None:
        """The batch of this name."""
        outcome = self._store.units.find(BATCH, name)
        if outcome is None:
            return None
        value = self._store.blobs.get_json(outcome.blobs["batch"], "the record of a batch of prompts")
        sent, failures = value["sent"], None
        if "failures" in outcome.blobs:
            failed = self._store.blobs.get_json(outcome.blobs["failures"], "the failures of a batch of prompts")
            failures = {key: Reply(**reply) for key, reply in failed.items()}
        return Batch(
            name,
            value["since"],
            value["prompts"],
            value["tokens"],
            value["cost"],
            outcome.blobs["lines"],
            None if sent is None else (sent[0], sent[1]),
            failures,
        )

    def sent(self, batch: Batch, batch_id: str) -> Batch:
        """The batch with its id, recorded."""
        return self._record(replace(batch, sent=(batch_id, time.time())))

    def taken(self, batch: Batch, failures: Mapping[str, Reply]) -> Batch:
        """The batch whose replies are recorded, with the failures of the others; it is done with."""
        return self._record(replace(batch, failures=dict(failures)))

    def of_run(self, run: str) -> list[str] | None:
        """The names of the batches that a run waits for, if it has sent all that it sends."""
        outcome = self._store.units.find(RUN, self._key(RUN, run))
        if outcome is None:
            return None
        names: list[str] = self._store.blobs.get_json(outcome.blobs["names"], "the batches of a run")
        return names

    def record_run(self, run: str, names: Sequence[str]) -> None:
        """Record what a run waits for."""
        blobs = {"names": self._store.blobs.put_json(list(names))}
        self._store.units.record(Outcome(stage=RUN, fingerprint=self._key(RUN, run), blobs=blobs))

    def _key(self, stage: str, name: str) -> str:
        return fingerprint(stage, STAGE_VERSION, url=self._url, of=name)

    def _named(self, ref: BlobRef) -> str:
        return str(self._store.blobs.get_json(ref, "the name of a batch of prompts")["name"])

    def _name(self, batch: Batch) -> None:
        """Have each prompt name its batch."""
        ref = self._store.blobs.put_json({"name": batch.name})

        def record(key: str) -> None:
            self._store.units.record(Outcome(stage=ASKED, fingerprint=self._key(ASKED, key), blobs={"batch": ref}))

        in_threads(record, batch.prompts)

    def _record(self, batch: Batch) -> Batch:
        value: dict[str, Any] = {
            "since": batch.since,
            "prompts": dict(batch.prompts),
            "tokens": batch.tokens,
            "cost": batch.cost,
            "sent": batch.sent,
        }
        blobs = {"batch": self._store.blobs.put_json(value), "lines": batch.lines}
        if batch.failures is not None:
            failed = {key: asdict(reply) for key, reply in batch.failures.items()}
            blobs["failures"] = self._store.blobs.put_json(failed)
        counts = {"questions": len(batch.prompts), "taken": int(batch.failures is not None)}
        self._store.units.record(Outcome(stage=BATCH, fingerprint=batch.name, blobs=blobs, counts=counts))
        return batch
