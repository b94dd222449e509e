"""Checks of a spec against its models and this installation, before any work and without loading them.

In:  a parsed spec, and its file's name for messages.
Out: the problems found, none if the spec can run here; notes on a spec that can.
Wrong: a model that cannot be found is one of the problems; nothing is raised.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from memorag_pipeline.errors import (
    CorruptBlobError,
    MissingDependencyError,
    ModelError,
    ModelProblem,
    NotFoundError,
    SpecError,
    SpecProblem,
)
from memorag_pipeline.memory.preflight import PROMPT_TOKENS, at_most, check_memory, memory_notes
from memorag_pipeline.models import hub
from memorag_pipeline.models.chat_template import require_turns
from memorag_pipeline.models.context import context_length
from memorag_pipeline.models.pooling import remarks, settled
from memorag_pipeline.models.references import (
    MODEL_TYPES,
    SPARSE_LAYER,
    place_of,
    read_config,
    read_safetensors_header,
    weights_place,
)
from memorag_pipeline.models.tokens import highest_token
from memorag_pipeline.models.weights import embedded_tokens, require_vocabulary, require_weights
from memorag_pipeline.prompts.texts import read_own
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.named import connections_of
from memorag_pipeline.specs.retrieval import RerankerSpec
from memorag_pipeline.specs.values import is_hub_id
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.places import place_problems, question_problems

__all__ = ["check", "check_models", "notes", "question_problems"]

_FAISS_FOR_GPUS = ("faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu12-cuvs", "faiss-gpu-cu13-cuvs")
_ROBERTA = {"roberta", "xlm-roberta"}


def check(spec: CorpusSpec, file: str) -> list[SpecProblem]:
    """All problems of `spec` here: with its models and prompts, places without a driver, an index that cannot be
    built."""
    return [
        *place_problems(spec, file),
        *check_models(spec, file),
        *_check_index(spec, file),
        *_check_prompts(spec, file),
    ]


def check_models(spec: CorpusSpec, file: str) -> list[SpecProblem]:
    """Problems of `spec` with its models: unknown, of an unsupported type, or too small for the spec."""
    problems: list[SpecProblem] = []
    memory = _decoder(problems, file, "memory.model", spec.memory.model, spec.memory.revision)
    if memory is not None:
        problems += check_memory(spec, file, memory)
    # Nothing is known here about an endpoint's model, not even its context.
    model, generator = spec.generation.model, memory if spec.generation.endpoint is None else None
    if model is not None and spec.generation.endpoint is None:
        generator = _decoder(problems, file, "generation.model", model, spec.generation.revision)
    if generator is not None:
        problems += _check_generation(spec, file, context_length(generator))
    embedding = _config(problems, file, "embedding.model", spec.embedding.model, spec.embedding.revision)
    if embedding is not None:
        problems += _check_files(file, "embedding.model", spec.embedding.model, spec.embedding.revision, embedding)
        problems += _check_embedding(spec, file, embedding)
    reranker = spec.retrieval.reranker
    if reranker is not None:
        config = _config(problems, file, "retrieval.reranker.model", reranker.model, reranker.revision)
        if config is not None:
            key = "retrieval.reranker.model"
            problems += _check_files(file, key, reranker.model, reranker.revision, config)
            problems += _check_reranker(reranker, file, config)
    return problems


def _check_generation(spec: CorpusSpec, file: str, context: int) -> Iterator[SpecProblem]:
    answer = spec.generation.max_new_tokens
    room = context - PROMPT_TOKENS - answer
    if spec.generation.evidence_tokens > room:
        yield SpecProblem(
            file,
            "generation.evidence_tokens",
            str(spec.generation.evidence_tokens),
            f"does not fit {spec.generation.model or spec.memory.model}: its context is {context} tokens,"
            f" of which {PROMPT_TOKENS} are kept for the prompt and {answer} for the answer",
            at_most(room, "generation"),
        )
    for name, job in spec.jobs.items():
        summary = job.summaries.summary_tokens
        read = max(spec.generation.evidence_tokens, 2 * summary)  # at least two summaries are merged into one
        if job.kind == "summaries" and read + summary > context - PROMPT_TOKENS:
            yield SpecProblem(
                file,
                f"jobs.{name}.summaries.summary_tokens",
                str(summary),
                f"leaves too little of the context of {spec.generation.model or spec.memory.model}: of {context} tokens"
                f" {PROMPT_TOKENS} are kept for the prompt, and {read} for what is summarized",
                "make it smaller",
            )


def _check_reranker(spec: RerankerSpec, file: str, config: dict[str, Any]) -> Iterator[SpecProblem]:
    kinds, labels = config.get("architectures") or [], config.get("num_labels", len(config.get("id2label", "??")))
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds) or labels != 1:
        problem, fix = "is not a cross-encoder with one score", "use one such as BAAI/bge-reranker-v2-m3"
        yield SpecProblem(file, "retrieval.reranker.model", spec.model, problem, fix)
    elif spec.max_tokens > _positions(config):
        yield SpecProblem(
            file,
            "retrieval.reranker.max_tokens",
            str(spec.max_tokens),
            f"{spec.model} has only {_positions(config)} positions",
            f"use at most {_positions(config)}",
        )


def _positions(config: dict[str, Any]) -> int:
    """Tokens that an encoder can read."""
    positions = int(config["max_position_embeddings"])
    # The position table of these begins after the padding index.
    return positions - int(config["pad_token_id"]) - 1 if config.get("model_type") in _ROBERTA else positions


def notes(spec: CorpusSpec) -> list[str]:
    """Notes on a valid spec."""
    return [
        *remarks(spec.embedding),
        *memory_notes(spec.memory),
        *_connections_without_airflow(spec),
    ]


def _connections_without_airflow(spec: CorpusSpec) -> Iterator[str]:
    named = connections_of(spec)
    if named and importlib.util.find_spec("airflow") is None:
        yield f"connection_id {', '.join(named)}: Airflow is not installed here, so commands here cannot use it"


def _check_embedding(spec: CorpusSpec, file: str, config: dict[str, Any]) -> Iterator[SpecProblem]:
    try:
        settled(spec.embedding)
    except ModelError as error:
        yield ModelProblem(file, "embedding.pooling", "", str(error))
    positions = _positions(config)
    if spec.embedding.max_tokens > positions:
        yield SpecProblem(
            file,
            "embedding.max_tokens",
            str(spec.embedding.max_tokens),
            f"{spec.embedding.model} has only {positions} positions",
            f"use at most {positions}",
        )
    if spec.retrieval.sparse == "model":
        yield from _check_sparse_layer(spec, file, config)


def _check_sparse_layer(spec: CorpusSpec, file: str, config: dict[str, Any]) -> Iterator[SpecProblem]:
    model, dimensions = spec.embedding.model, config.get("hidden_size")
    try:
        header = read_safetensors_header(place_of(model, SPARSE_LAYER, spec.embedding.revision))
    except (NotFoundError, CorruptBlobError):
        if is_hub_id(model) and hub.has_layer(model, spec.embedding.revision):
            return
        problem = f"{model} has no {SPARSE_LAYER} that can be read"
    else:
        shapes = {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
        if shapes == {"weight": [1, dimensions], "bias": [1]}:
            return
        problem = f"{SPARSE_LAYER} of {model} is not that of a model with {dimensions} dimensions"
    fix = "use bm25, or a model with one, such as BAAI/bge-m3 by its id"
    yield SpecProblem(file, "retrieval.sparse", "'model'", problem, fix)


def _check_index(spec: CorpusSpec, file: str) -> Iterator[SpecProblem]:
    if spec.index.device == "cpu":
        return
    if not any(map(_is_installed, _FAISS_FOR_GPUS)):
        problem, fix = "this installation has no Faiss for GPUs", "install the extra gpu in place of cpu, or use cpu"
        yield SpecProblem(file, "index.device", "'gpu'", problem, fix)


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _check_prompts(spec: CorpusSpec, file: str) -> list[SpecProblem]:
    if spec.prompts is None:
        return []
    try:
        read_own(spec.prompts.uri, options_for(spec.prompts))
    except SpecError as error:
        return [SpecProblem(file, "prompts", "", str(problem)) for problem in error.problems]
    return []


def _decoder(
    problems: list[SpecProblem], file: str, key: str, model: str, revision: str | None
) -> dict[str, Any] | None:
    config = _config(problems, file, key, model, revision)
    if config is None or config.get("model_type") in MODEL_TYPES:
        problems += [] if config is None else _check_files(file, key, model, revision, config)
        return config
    kind = f"is a model of type {config.get('model_type')!r}, which cannot hold a memory or write answers"
    problems.append(SpecProblem(file, key, model, kind, f"use a decoder of type {', '.join(MODEL_TYPES)}"))
    return None


def _check_files(
    file: str, key: str, model: str, revision: str | None, config: Mapping[str, Any]
) -> Iterator[SpecProblem]:
    """Problems with the weights and the tokenizer, if these can be checked without fetching or converting them."""
    try:
        place = weights_place(model, revision)
        if place is not None:
            rows = embedded_tokens(require_weights(place, model, config), config)
            highest = highest_token(place, model)
            if rows is not None:
                require_vocabulary(rows, highest, model)
            if config.get("model_type") in MODEL_TYPES:
                require_turns(place, model)
    except NotFoundError as error:
        yield ModelProblem(file, key, "", str(error))


def _config(
    problems: list[SpecProblem], file: str, key: str, model: str, revision: str | None
) -> dict[str, Any] | None:
    try:
        return read_config(model, revision)
    except (NotFoundError, MissingDependencyError) as error:
        problems.append(SpecProblem(file, key, "", str(error)))
        return None
