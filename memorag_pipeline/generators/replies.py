"""Replies that were written or paid for, kept as units: a killed task, a retry and a later run reuse them.

In:  the request as sent, and its recipient: an endpoint, or a model in the process.
Out: the reply, if one was ever recorded.
Wrong: what the store raises. A reply with an error that may not recur is not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.models.thoughts import spoken
from memorag_pipeline.storage import CorpusStore, Outcome, fingerprint

STAGE = "reply"
STAGE_VERSION = 1


class Replies(Protocol):
    """Where replies are kept."""

    def find_all(self, keys: Sequence[str]) -> dict[str, Reply]:
        """The existing replies, by key; those of other runs are `reused`."""
        ...

    def record(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        ...


def reply_key(generator: str, request: dict[str, Any]) -> str:
    """Fingerprint of a request to a generator (its URL or digest); the two hold everything that a reply depends on."""
    return fingerprint(STAGE, STAGE_VERSION, url=generator, request=request)


class ReplyUnits:
    """Replies in the store of a corpus; `run` is the id of the run that writes them."""

    def __init__(self, store: CorpusStore, run: str) -> None:
        self._store, self._run = store, run

    def find_all(self, keys: Sequence[str]) -> dict[str, Reply]:
        """As the protocol says."""
        outcomes = self._store.units.find_all(STAGE, keys)
        found = {key: outcome for key, outcome in zip(keys, outcomes, strict=True) if outcome is not None}
        return dict(zip(found, in_threads(self._kept, found.values()), strict=True))

    def record(self, key: str, reply: Reply) -> None:
        """As the protocol says."""
        value = {
            "text": reply.text,
            "error": reply.error,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "finish_reason": reply.finish_reason,
            "cost": reply.cost,
            "run": self._run,
        }
        blobs = {"reply": self._store.blobs.put_json(value)}
        self._store.units.record(Outcome(stage=STAGE, fingerprint=key, blobs=blobs))

    def _kept(self, outcome: Outcome) -> Reply:
        value = self._store.blobs.get_json(outcome.blobs["reply"], "a reply of the generator")
        run = value.pop("run")
        # Replies kept by earlier releases still contain thoughts.
        value["text"] = spoken(value["text"]).text
        return Reply(**value, reused=run != self._run)
