"""Retrieval alone, the full context, and memories of several kinds, side by side on the same questions.

In:  files of questions, kinds of memory, the sections of a corpus spec, a folder for versions and scores.
Out: a `Comparison`: for each set and system means with 95 % intervals, and differences from retrieval alone.
Wrong: as in `question_sets` and `systems`. Finished work is kept in the folder: a second call continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from memorag_pipeline.comparison.systems import System, build_version, score_system, systems
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.evaluation.bootstrap import Estimate, difference, estimate
from memorag_pipeline.evaluation.question_sets import QuestionSet, read_question_set
from memorag_pipeline.evaluation.version_scores import METRICS, QuestionScores, Scores, unplaced
from memorag_pipeline.progress import track
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.values import Metric

SECTIONS = CorpusSpec.model_validate(
    {
        "corpus": "evaluation",
        "source": {"uris": ["."]},
        "store": {"uri": "."},
        "memory": {"model": "package:smollm2-135m-instruct"},
        "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
    }
)


@dataclass(frozen=True)
class SystemResult:
    """A system on a set. `metrics` lacks those that it cannot have; `gains` are paired differences from the baseline.

    Seconds and tokens are means over the questions; seconds are those of answering, not of making memories.
    """

    system: str
    metrics: Mapping[Metric, Estimate]
    gains: Mapping[Metric, Estimate]
    seconds: float
    input_tokens: float
    output_tokens: float
    clues: float
    errors: int
    rows: tuple[QuestionScores, ...]


@dataclass(frozen=True)
class SetResult:
    """A set: its corpus has `contexts` texts of `tokens` tokens in all, and memories of `memory_bytes` by kind.

    `broken` names the rows that were left out, `unplaced` counts questions whose evidence is in no document.
    """

    name: str
    language: str
    questions: int
    contexts: int
    tokens: int
    broken: tuple[str, ...]
    unplaced: int
    memory_bytes: Mapping[str, int]
    systems: tuple[SystemResult, ...]


@dataclass(frozen=True)
class Comparison:
    """All sets, with what they were asked with."""

    memory_model: str
    embedding_model: str
    generation_model: str
    seed: int
    sets: tuple[SetResult, ...]


def compare(
    uris: Sequence[str],
    kinds: Sequence[str],
    home: Path,
    sections: CorpusSpec = SECTIONS,
    rows: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the systems on `rows` rows (default: all) of each file; everything is kept below `home`."""
    sets = [read_question_set(uri, rows, seed) for uri in uris]
    for questions in sets:
        _require_contexts(questions)
    wanted = len(sets) * len(systems(kinds))
    with track("systems evaluated", wanted, "systems") as bar:
        results = tuple(_compare_on(questions, kinds, sections, home, bar.advance) for questions in sets)
    return Comparison(
        memory_model=sections.memory.model,
        embedding_model=sections.embedding.model,
        generation_model=sections.generation.model or sections.memory.model,
        seed=seed,
        sets=results,
    )


def _require_contexts(questions: QuestionSet) -> None:
    """Refuse a set without texts: there is nothing to make a corpus of."""
    if not questions.contexts:
        raise QuestionError(
            f"{questions.name}: its rows have neither context nor context_id; to ask them of a published corpus, name"
            " the file in the section evaluation of the corpus's spec"
        )


def _compare_on(
    questions: QuestionSet, kinds: Sequence[str], sections: CorpusSpec, home: Path, advance: Callable[[], None]
) -> SetResult:
    versions = {kind: build_version(questions, sections, kind, home) for kind in kinds}
    found: dict[System, Scores] = {}
    for system in systems(kinds):
        found[system] = score_system(system, versions[system.kind or kinds[0]], questions, sections.generation)
        advance()
    baseline = next(iter(found.values()))
    any_version = versions[kinds[0]]
    return SetResult(
        name=questions.name,
        language=questions.language,
        questions=len(questions.questions),
        contexts=len(questions.contexts),
        tokens=any_version.manifest.counts["tokens"],
        broken=questions.broken,
        unplaced=len(unplaced(questions.questions, baseline)),
        memory_bytes={
            kind: sum(blob.size for blob in version.manifest.of_role("memory")) for kind, version in versions.items()
        },
        systems=tuple(_result(system, scores, baseline) for system, scores in found.items()),
    )


def _result(system: System, scores: Scores, baseline: Scores) -> SystemResult:
    rows = scores.rows
    metrics, gains = dict[Metric, Estimate](), dict[Metric, Estimate]()
    for metric in METRICS:
        values, others = scores.values(metric), baseline.values(metric)
        both = [name for name in values if name in others]
        if values:
            metrics[metric] = estimate(list(values.values()))
        if both and scores is not baseline:
            gains[metric] = difference([values[name] for name in both], [others[name] for name in both])
    return SystemResult(
        system=system.label,
        metrics=metrics,
        gains=gains,
        seconds=scores.seconds / len(rows),
        input_tokens=fmean(row.input_tokens for row in rows),
        output_tokens=fmean(row.output_tokens for row in rows),
        clues=fmean(len(row.clues) for row in rows),
        errors=sum(row.error is not None for row in rows),
        rows=rows,
    )
