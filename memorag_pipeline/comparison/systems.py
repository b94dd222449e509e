"""The systems that are compared: ways to answer the same questions from the same texts.

In:  a set of questions with its contexts, and the sections of a corpus spec.
Out: a version of the corpus for each kind of memory, built by the pipeline; the scores of each system.
Wrong: what a refresh raises. Nothing is built or asked twice: both are units of the store.

All contexts of a set are one corpus, as a user would have it. Only the full context knows which text a question is
about; if it does not fit the model, its middle is cut out, as LongBench does (Bai et al. 2024).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memorag_pipeline.digests import value_digest
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion, QuestionSet, questions_digest
from memorag_pipeline.evaluation.version_scores import Scores, score_answer, score_version, scores_of_unit
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.memory_kinds import KINDS

if TYPE_CHECKING:
    from memorag_pipeline.memory.engine.generation import Generation

Mode = Literal["retrieval_only", "full_context", "memory_only", "memorag"]

_ADAPTERS = {"package:smollm2-135m-instruct": "package:smollm2-135m-beacon"}
_SHARED = (
    "model",
    "revision",
    "window",
    "context",
    "rope_scaling",
    "dtype",
    "codec",
    "quantization",
    "budget_mib",
    "reproducible",
)


@dataclass(frozen=True)
class System:
    """A way to answer; `kind` is that of its memory, None where none is used."""

    mode: Mode
    kind: str | None = None

    @property
    def label(self) -> str:
        """Its name for readers."""
        names = {"retrieval_only": "retrieval only", "full_context": "full context"}
        if self.kind is None:
            return names[self.mode]
        return f"memory only, {self.kind}" if self.mode == "memory_only" else f"MemoRAG, {self.kind}"


def systems(kinds: Sequence[str]) -> list[System]:
    """All systems, the baseline first."""
    plain = [System("retrieval_only"), System("full_context")]
    return plain + [System(mode, kind) for mode in ("memory_only", "memorag") for kind in kinds]


def memory_of_kind(memory: MemorySpec, kind: str) -> MemorySpec:
    """`memory` itself if it is of this kind, otherwise one of the same model with the defaults of the kind."""
    if memory.kind == kind:
        return memory
    values: dict[str, Any] = {name: getattr(memory, name) for name in _SHARED if name in memory.model_fields_set}
    if KINDS[kind].has_beacons and memory.model in _ADAPTERS:
        values |= {"adapter": _ADAPTERS[memory.model]}
        values.pop("window", None)  # that of the adapter
    return MemorySpec.model_validate({**values, "kind": kind})


def build_version(questions: QuestionSet, sections: CorpusSpec, kind: str, home: Path) -> OpenedVersion:
    """A version of the corpus of all contexts of a set, below `home`; `sections` gives everything except source and
    store."""
    from memorag_pipeline import runner

    digest = value_digest(dict(questions.contexts))[:12]
    source = home / "sources" / digest
    for name, text in questions.contexts.items():
        path, data = source / name, text.encode()
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    stem = re.sub(r"[^a-z0-9_-]+", "-", questions.name.lower()).strip("-_")[:40] or "set"
    values = {
        **sections.model_dump(mode="json", include={"chunking", "sharding", "index"}, exclude_unset=True),
        "corpus": f"{stem}-{digest}",
        "language": questions.language,
        "source": {"uris": [str(source)], "include": ["**/*.txt"]},
        "store": {"uri": str(home / "store")},
    }
    models = {
        "memory": memory_of_kind(sections.memory, kind),
        "embedding": sections.embedding,
        "generation": sections.generation,
    }
    pipeline = Pipeline(CorpusSpec.model_validate(values | models))
    result = runner.refresh(pipeline, f"evaluation-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    return OpenedVersion(pipeline.store, result.version, trust_models=True)


def score_system(system: System, version: OpenedVersion, questions: QuestionSet, generation: GenerationSpec) -> Scores:
    """Ask a system the questions; `version` is one with its kind of memory, or any where it has none."""
    if system.mode != "full_context":
        settings = AnswerSettings.of_version(version.manifest, generation, mode=system.mode)
        return score_version(version, questions.questions, settings)
    settings = AnswerSettings.of_version(version.manifest, generation)
    full = memory_of_kind(settings.memory, "full")
    settings = settings.model_copy(update={"memory": full})
    inputs = {
        "full_context": value_digest(dict(questions.contexts)),
        "questions": questions_digest(questions.questions),
        "settings": settings.content(),
        "model": next(model.digest for model in version.manifest.models if model.role == "memory"),
        "prompts": settings.prompt_version,
    }
    return scores_of_unit(version.store, inputs, lambda: _score_full_context(questions, settings))


def _score_full_context(questions: QuestionSet, settings: AnswerSettings) -> Scores:
    """Each context is read once, into a plain cache that its questions share."""
    from memorag_pipeline.generators.interface import Reply
    from memorag_pipeline.jobs.answers.answer_batch import answer_of

    started = time.perf_counter()
    by_context: dict[str | None, list[EvaluationQuestion]] = {}
    for question in questions.questions:
        by_context.setdefault(question.uri, []).append(question)
    rows = {}
    for name, group in by_context.items():
        text = questions.contexts[name] if name is not None else "\n\n".join(questions.contexts.values())
        tokens, generations = _read_and_reply(text, [question.question for question in group], settings)
        for question, found in zip(group, generations, strict=True):
            row = {"question_id": question.question_id, "question": question.question, "error": None}
            reply = Reply(found.text.strip(), tokens + found.input_tokens, found.output_tokens, found.error)
            answer = answer_of(row, (), (), reply, 0.0)
            rows[question.question_id] = score_answer(question, answer, (), None)
    return Scores(
        rows=tuple(rows[question.question_id] for question in questions.questions),
        seconds=time.perf_counter() - started,
    )


def _read_and_reply(text: str, asked: Sequence[str], settings: AnswerSettings) -> tuple[int, list[Generation]]:
    """The number of tokens of a text that were read, and the replies to questions about it."""
    from memorag_pipeline.memory.engine.generation import Decoding
    from memorag_pipeline.memory.kinds.full import FullMemoryModel
    from memorag_pipeline.memory.kinds.load import load_memory_model

    model = load_memory_model(settings.memory, settings.language)
    assert isinstance(model, FullMemoryModel)
    generation, prompts = settings.generation, load_prompts(settings.language)
    texts = [prompts.answer_from_memory(question) for question in asked]
    opening, tokens = model.stream.opening, model.stream.tokenizer.plain(text)
    longest = max(len(model.stream.suffix(prompt)) for prompt in texts)
    room = model.language_model.context - len(opening) - longest - generation.max_new_tokens
    if len(tokens) > room:
        tokens = [*tokens[: (room + 1) // 2], *tokens[len(tokens) - room // 2 :]]
    memory = model.memorize([*opening, *tokens])
    replies = model.generate(memory, texts, Decoding.of(generation), batch_size=generation.batch_size)
    return memory.tokens, replies
