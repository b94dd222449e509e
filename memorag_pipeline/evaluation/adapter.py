"""An adapter beside what needs no training: gap closed at each ratio, needles, and the clues that are recalled.

In:  an adapter with its model, window and sink; held-out texts as tokens.
Out: an `Evaluation`, which `dataclasses.asdict` turns into JSON values.
Wrong: no text that is long enough is a `ValueError`; an adapter of another model a `MemoryMismatchError`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from memorag_pipeline.evaluation.gap import (
    ASKED,
    BIN,
    TOKENS,
    Gap,
    bin_names,
    first_tokens,
    gap,
    losses_of_own_and_other,
    with_all,
    without_context,
)
from memorag_pipeline.evaluation.memories import POLICIES, AdapterUnderTest, Policy, at_ratio
from memorag_pipeline.evaluation.needles import (
    NeedleCell,
    NeedleTask,
    candidate_losses,
    candidate_losses_without,
    haystacks,
    needle_cells,
)
from memorag_pipeline.evaluation.recall_quality import EMBEDDING, ContextQuestion, RecallQuality, recall_quality
from memorag_pipeline.memory.kinds.beacon import WindowedMemoryModel
from memorag_pipeline.progress import track

logger = logging.getLogger(__name__)

RATIOS = (2, 4, 8, 16)
NEEDLES = NeedleTask()
ALL = "all"
_QUESTION_TOKENS = 64  # room for the question after a needle and for its answer


@dataclass(frozen=True)
class MemoryRow:
    """A memory: `beacon`, or the policy by which slots were selected; its mean loss (nats) and the gap it closes.

    `of_other` is the share that a memory of another text closes, None for a single text.
    """

    memory: str
    ratio: int
    loss: float
    gap: Gap
    of_other: float | None = None


@dataclass(frozen=True)
class NeedleRow:
    """How well a memory remembers needles; `all` at ratio 0 is the model with the whole stream."""

    memory: str
    ratio: int
    cells: tuple[NeedleCell, ...]


@dataclass(frozen=True)
class RecallRow:
    """What a memory recalls for the questions of a set."""

    memory: str
    ratio: int
    quality: RecallQuality


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured of one adapter.

    `texts` of `tokens` tokens each, of which the last `asked` were asked; `nothing` and `all` are their mean losses
    (nats) given nothing and all tokens. `positions` names the bins of each gap by position. `candidates` is the number
    of candidates for a needle, 0 without needles.
    """

    model: str
    adapter: str
    adapter_digest: str
    window: int
    sink: int
    dtype: str
    texts: int
    tokens: int
    asked: int
    positions: tuple[str, ...]
    nothing: float
    all: float
    memories: tuple[MemoryRow, ...]
    candidates: int
    needles: tuple[NeedleRow, ...]
    recall: tuple[RecallRow, ...]


@dataclass(frozen=True)
class _Subject:
    memory: str
    ratio: int
    model: WindowedMemoryModel


def evaluate_adapter(
    adapter: AdapterUnderTest,
    texts: Sequence[Sequence[int]],
    ratios: Sequence[int] = RATIOS,
    *,
    policies: Sequence[Policy] = POLICIES,
    tokens: int = TOKENS,
    asked: int = ASKED,
    needles: NeedleTask | None = NEEDLES,
    questions: Sequence[ContextQuestion] = (),
    closer_ratios: Sequence[int] = (4,),
) -> Evaluation:
    """Evaluate an adapter on those held-out texts (given as tokens) that have at least `tokens` tokens.

    Needles, which are hidden in the same texts, and `questions` are asked of memories at `closer_ratios` only, because
    they are slow: each needle costs reading a stream, each context of a question costs that and its clues. No needle is
    hidden in a stream that is longer than all texts together, or than the model's context.
    """
    taken = first_tokens(texts, tokens)
    if not taken:
        raise ValueError(f"none of {len(texts)} held-out texts has {tokens:,} tokens; give longer texts, or take fewer")
    language_model, beacons = adapter.language_model, adapter.beacons(ratios[0])
    models: dict[str, WindowedMemoryModel] = {"beacon": beacons} | {
        policy: adapter.selected(policy, ratios[0]) for policy in policies
    }
    subjects, closer = _at(models, ratios), _at(models, closer_ratios)
    nothing, full = without_context(language_model, taken, asked), with_all(language_model, taken, asked)
    rows = []
    with track("memories evaluated", len(subjects), "memories") as bar:
        for subject in subjects:
            held, other = losses_of_own_and_other(subject.model, taken, asked)
            of_other = gap(nothing, other, full).closed if len(taken) > 1 else None
            rows.append(MemoryRow(subject.memory, subject.ratio, _mean(held), gap(nothing, held, full), of_other))
            bar.advance()
    task = None if needles is None else _possible(needles, sum(map(len, texts)), language_model.context)
    return Evaluation(
        model=language_model.resolved.name,
        adapter=adapter.file.name,
        adapter_digest=beacons.origin.beacon_digest,
        window=adapter.window,
        sink=adapter.sink,
        dtype=beacons.origin.dtype,
        texts=len(taken),
        tokens=tokens,
        asked=asked,
        positions=bin_names(asked, BIN),
        nothing=_mean(nothing),
        all=_mean(full),
        memories=tuple(rows),
        candidates=task.candidates if task is not None else 0,
        needles=_needles(adapter.full(), closer, texts, task) if task is not None else (),
        recall=_recall(closer, questions),
    )


def _at(models: Mapping[str, WindowedMemoryModel], ratios: Sequence[int]) -> list[_Subject]:
    """Each memory at each ratio."""
    return [_Subject(name, ratio, at_ratio(model, ratio)) for name, model in models.items() for ratio in ratios]


def _possible(task: NeedleTask, tokens: int, context: int) -> NeedleTask | None:
    """The task in streams that texts of `tokens` tokens fill and a context holds; None when none is short enough."""
    room = min(tokens, context - _QUESTION_TOKENS)
    lengths = tuple(length for length in task.lengths if length <= room)
    for length in sorted(set(task.lengths) - set(lengths)):
        logger.warning(
            "no needles in streams of %s tokens: the held-out texts have %s in all, the model's context %s",
            *(f"{number:,}" for number in (length, tokens, context)),
        )
    return replace(task, lengths=lengths) if lengths else None


def _needles(
    whole: WindowedMemoryModel, subjects: Sequence[_Subject], texts: Sequence[Sequence[int]], task: NeedleTask
) -> tuple[NeedleRow, ...]:
    """How well each memory remembers the needles, and `whole`, which forgets nothing."""
    language_model = whole.language_model
    found = haystacks(language_model.tokenizer, texts, task)
    nothing, full = candidate_losses_without(language_model, found), candidate_losses(whole, found)
    rows = []
    with track("memories searched for needles", len(subjects), "memories") as bar:
        for subject in subjects:
            cells = needle_cells(found, nothing, candidate_losses(subject.model, found), full)
            rows.append(NeedleRow(subject.memory, subject.ratio, cells))
            bar.advance()
    return (*rows, NeedleRow(ALL, 0, needle_cells(found, nothing, full, full)))


def _recall(subjects: Sequence[_Subject], questions: Sequence[ContextQuestion]) -> tuple[RecallRow, ...]:
    """A row for each memory and set of questions."""
    sets: dict[str, list[ContextQuestion]] = {}
    for question in questions:
        sets.setdefault(question.set, []).append(question)
    return tuple(
        RecallRow(subject.memory, subject.ratio, recall_quality(subject.model, group, EMBEDDING))
        for subject in subjects
        for group in sets.values()
    )


def _mean(losses: Tensor) -> float:
    return float(losses.double().mean())
