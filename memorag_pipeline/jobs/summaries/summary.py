"""The result for a part and for a target: a summary, for a service or as a row of the table summaries.

In:  replies of a generator, and what was read for them.
Out: `PartSummary`, kept as JSON; `Summary`; rows of `schemas.SUMMARIES`.
Wrong: a part that failed has its error; nothing is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.jobs.citations import used_passages
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.targets import Scope, Target
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.prompts.echo import no_text, without_echo
from memorag_pipeline.retrieval.passage import Passage


@dataclass(frozen=True)
class Written:
    """What a generator wrote for a part, or for all parts of a target, with tokens, cost and seconds.

    Just one of `text` and `error` is set. An error that is `unfinished` may go better later, so that the next run asks
    again. Tokens and `cost` are those of the generator, now or, if `reused`, when the reply was written. Of a
    merged text `finish_reason` is "length" if any text that it was made of was cut.
    """

    text: str | None
    error: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    reused: bool = False
    unfinished: bool = False
    finish_reason: str | None = None

    @classmethod
    def of(cls, reply: Reply, seconds: float, said: Sequence[str] = ()) -> Written:
        """A reply as stored, without what it repeats of its prompt; `said` are the prompt's own texts."""
        text = without_echo(reply.text, said)
        error = reply.error or (None if text else no_text(reply.text))
        return cls(
            None if error else text,
            error,
            reply.input_tokens,
            reply.output_tokens,
            reply.cost,
            seconds,
            reply.reused,
            reply.retryable,
            reply.finish_reason,
        )

    def counts(self) -> dict[str, int]:
        """Counts for the outcome of its unit; replies paid for earlier are not counted again."""
        new = self if not self.reused else replace(self, input_tokens=0, output_tokens=0, cost=None)
        return {
            "errors": int(self.error is not None),
            "unfinished": int(self.unfinished),
            "cut": int(self.error is None and self.finish_reason == "length"),
            "input_tokens": new.input_tokens,
            "output_tokens": new.output_tokens,
            "cost_millionths": round((new.cost or 0.0) * 1e6),
        }


@dataclass(frozen=True)
class PartSummary:
    """The summary of a part: its key points (none if the part was read whole), the passages offered and those used."""

    written: Written
    key_points: tuple[str, ...]
    evidence: tuple[Passage, ...]
    used: tuple[int, ...]

    @classmethod
    def of(cls, written: Written, key_points: Sequence[str], evidence: Sequence[Passage]) -> PartSummary:
        """With the passages that the text uses."""
        used, _ = used_passages(written.text or "", "", [passage.text for passage in evidence])
        return cls(written, tuple(key_points), tuple(evidence), used)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> PartSummary:
        """From the JSON that `asdict` gives."""
        evidence = tuple(Passage(**passage) for passage in value["evidence"])
        return cls(Written(**value["written"]), tuple(value["key_points"]), evidence, tuple(value["used"]))


@dataclass(frozen=True)
class Summary:
    """The result for a target: one document, or (`document_id` is None) the documents that the globs `include` match.

    `status` is summarized or error; only the first has a `summary`, only the other an `error`. `evidence` are the
    passages that the generator was given, of which it used those whose numbers, from 1, are in `used`; of a target in
    several parts those that the summaries of the parts used. `finish_reason` is "length" if its text, or that of
    a part, was cut. `tokens` are those of the memory model, `characters` those of the documents. Token counts, `cost`
    and `seconds` are as in an answer, for all parts and their merging.
    """

    summary_id: str
    scope: Scope
    document_id: str | None
    uri: str | None
    title: str | None
    include: tuple[str, ...]
    focus: str | None
    status: Literal["summarized", "error"]
    summary: str | None
    error: str | None
    key_points: tuple[str, ...]
    evidence: tuple[Passage, ...]
    used: tuple[int, ...]
    documents: int
    parts: int
    characters: int
    tokens: int
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = field(default=0.0)
    finish_reason: str | None = None

    @classmethod
    def of(
        cls,
        target: Target,
        include: Sequence[str],
        focus: str | None,
        parts: Sequence[PartSummary],
        merged: Written | None,
    ) -> Summary:
        """The summary of a target whose parts are summarized; `merged` is None if there is one part, or one of them
        failed."""
        written = [part.written for part in parts]
        final = merged or next((each for each in written if each.error is not None), written[0])
        taken = [*written, *([merged] if merged is not None else [])]
        costs = [each.cost for each in taken if each.cost is not None]
        evidence, numbers = parts[0].evidence, parts[0].used
        if len(parts) > 1:
            evidence = tuple(part.evidence[number - 1] for part in parts for number in part.used)
            numbers = tuple(range(1, len(evidence) + 1))
        return cls(
            target.summary_id,
            "corpus" if target.document_id is None else "document",
            target.document_id,
            target.uri,
            target.title,
            tuple(include) if target.document_id is None else (),
            focus,
            "summarized" if final.error is None else "error",
            final.text,
            _explained(final, merged, written),
            tuple(dict.fromkeys(point for part in parts for point in part.key_points)),
            evidence,
            numbers,
            target.documents,
            len(parts),
            target.characters,
            target.tokens,
            sum(each.input_tokens for each in taken),
            sum(each.output_tokens for each in taken),
            sum(costs) if costs else None,
            sum(each.seconds for each in taken),
            "length" if any(each.finish_reason == "length" for each in taken) else final.finish_reason,
        )


def _explained(final: Written, merged: Written | None, written: Sequence[Written]) -> str | None:
    """The error, with the part that it is about."""
    if final.error is None or len(written) == 1:
        return final.error
    where = "merging the parts" if final is merged else f"part {written.index(final) + 1} of {len(written)}"
    return f"{where}: {final.error}"


def row_of(summary: Summary, columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `schemas.SUMMARIES`; `columns` are the values that all rows of a job share."""
    row = asdict(summary)
    row["evidence"] = [
        {**passage, "number": number, "used": number in summary.used}
        for number, passage in enumerate(row["evidence"], 1)
    ]
    row |= {"source_characters": row.pop("characters"), "source_tokens": row.pop("tokens")}
    return {**row, **columns, "summary_characters": len(summary.summary or "")}


def shared_columns(version: OpenedVersion, job: str, settings: SummarySettings) -> dict[str, Any]:
    """Values that all rows of a job have: corpus, job, version, models, prompts."""
    return {
        "corpus": version.manifest.corpus,
        "job": job,
        "corpus_version": version.number,
        **version.manifest.model_columns(),
        "generation_model": settings.models.generation_name,
        "prompt_version": settings.prompts.version,
    }
