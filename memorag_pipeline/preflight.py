"""Checks of a spec against its models and this installation, before any work and without loading them.

In:  a parsed spec, and its file's name for messages.
Out: the problems found, none if the spec can run here; the memory size of a token, and of a shard on a GPU.
Wrong: a model that cannot be found is one of the problems; nothing is raised.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from memorag_pipeline.errors import (
    CorruptBlobError,
    MemoryConfigError,
    MemoryMismatchError,
    MissingDependencyError,
    ModelError,
    ModelProblem,
    NotFoundError,
    SpecError,
    SpecProblem,
)
from memorag_pipeline.memory import cost
from memorag_pipeline.memory import gpu_memory as gpu
from memorag_pipeline.memory.cost import TEXT_BYTES_PER_TOKEN, MemoryCost
from memorag_pipeline.memory.engine.beacon_config import ATTENDED, BeaconConfig
from memorag_pipeline.memory.gpu_memory import GpuMemory
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.models import hub
from memorag_pipeline.models.chat_template import require_turns
from memorag_pipeline.models.context import context_length, yarn_for
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
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.specs.memory import MemorySpec, ratios_fit_window, sink_fits_window
from memorag_pipeline.specs.memory_kinds import KINDS
from memorag_pipeline.specs.named import connections_of
from memorag_pipeline.specs.retrieval import RerankerSpec
from memorag_pipeline.specs.values import is_hub_id
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.places import place_problems, question_problems

__all__ = ["check", "check_models", "gpu_memory", "memory_cost", "notes", "question_problems"]

# Room that a recall needs after the memory, in addition to the clues: the turns, the prompt and the question.
PROMPT_TOKENS = 512
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
    form = _form(problems, file, spec.memory, memory) if memory is not None else None
    if memory is not None and form is not None:
        problems += _check_form(file, form)
        problems += _check_rotation(file, spec.memory, memory, form)
        problems += _check_shards(spec, file, spec.memory.context or context_length(memory), form)
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


def memory_cost(spec: CorpusSpec, text_bytes_per_token: float = TEXT_BYTES_PER_TOKEN) -> MemoryCost | None:
    """The memory size of a token of text; None if a model or an adapter cannot be read, or does not say."""
    problems: list[SpecProblem] = []
    config = _config(problems, "", "memory.model", spec.memory.model, spec.memory.revision)
    form = None if config is None else _form(problems, "", spec.memory, config)
    if config is None or form is None:
        return None
    return cost.memory_cost(spec.memory, form, config, text_bytes_per_token)


def gpu_memory(spec: CorpusSpec) -> GpuMemory | None:
    """What a shard of full size takes of a GPU; None if a model or an adapter cannot be read, or does not say."""
    problems: list[SpecProblem] = []
    config = _config(problems, "", "memory.model", spec.memory.model, spec.memory.revision)
    form = None if config is None else _form(problems, "", spec.memory, config)
    if config is None or form is None:
        return None
    return gpu.gpu_memory(spec.memory, form, config, spec.sharding.max_tokens)


def _form(problems: list[SpecProblem], file: str, memory: MemorySpec, config: Mapping[str, Any]) -> BeaconConfig | None:
    """Window, ratios and sink of the memories, from the spec, else from the training of adapter or checkpoint."""
    if not KINDS[memory.kind].has_beacons:
        return BeaconConfig.untrained(memory)
    key = "memory.model" if memory.adapter is None else "memory.adapter"
    try:
        found = _trained(memory, config)
    except (NotFoundError, CorruptBlobError, MemoryConfigError) as error:
        problems.append(SpecProblem(file, key, "", str(error)))
        return None
    return found.over(memory)


def _trained(memory: MemorySpec, config: Mapping[str, Any]) -> BeaconConfig:
    """The form that the beacons were trained in, by the adapter or the model's configuration."""
    if memory.adapter is None:
        return BeaconConfig.of(config, memory.model)
    return BeaconConfig.of(_adapter_config(memory.adapter), memory.adapter)


def _adapter_config(uri: str) -> dict[str, str]:
    """An adapter's description of itself, read without its tensors."""
    metadata: dict[str, str] = read_safetensors_header(uri).get("__metadata__", {})
    return metadata


def _check_form(file: str, form: BeaconConfig) -> Iterator[SpecProblem]:
    """Conflicts between the spec and what was trained; the spec itself is consistent."""
    ratios = ", ".join(map(str, form.ratios))
    if problem := ratios_fit_window(form.ratios, form.window):
        yield SpecProblem(file, "memory.ratio", ratios, problem, "use divisors of the window")
    if problem := sink_fits_window(form.sink, form.window):
        yield SpecProblem(file, "memory.sink", str(form.sink), problem, "make it smaller, or the window larger")


def _check_rotation(
    file: str, memory: MemorySpec, config: Mapping[str, Any], form: BeaconConfig
) -> Iterator[SpecProblem]:
    """A rope scaling that the model cannot have, or that the adapter was not trained with."""
    try:
        scaling = _rope_scaling(memory, config)
    except MemoryConfigError as error:
        yield SpecProblem(file, "memory.rope_scaling", "", str(error))
        return
    try:
        form.require_rotation(scaling, memory.adapter or memory.model)
    except MemoryMismatchError as error:
        yield SpecProblem(file, "memory.rope_scaling", "", str(error))


def _rope_scaling(memory: MemorySpec, config: Mapping[str, Any]) -> str:
    """What a spec adds to the rotation of a model. Raises MemoryConfigError."""
    if memory.rope_scaling is None or memory.context is None:
        return ""
    return str(yarn_for(config, memory.context))


def _check_shards(spec: CorpusSpec, file: str, context: int, form: BeaconConfig) -> Iterator[SpecProblem]:
    clues = max((_recall_tokens(job) for job in spec.jobs.values()), default=0)
    room, kept = _shard_room(spec.memory.kind, form, context - PROMPT_TOKENS - clues)
    if spec.sharding.max_tokens > room:
        fix = _at_most(room, "memory")
        yield SpecProblem(
            file,
            "sharding.max_tokens",
            str(spec.sharding.max_tokens),
            f"a shard can be larger than {spec.memory.model} can hold: its context is {context} positions,"
            f" of which {PROMPT_TOKENS} are kept for a prompt and {clues} for clues{kept}",
            f"{fix}, or a smaller memory.window" if kept and room < 64 else f"{fix}, or give memory.context",
        )


def _recall_tokens(job: JobSpec) -> int:
    """Tokens that a job lets a memory generate."""
    return job.clue_tokens if job.kind == "answers" else job.summaries.recall_tokens


def _shard_room(kind: str, form: BeaconConfig, room: int) -> tuple[int, str]:
    """Tokens of a stream that fit into this many slots, and what they need in addition."""
    positions = KINDS[kind].positions
    if positions == "summary":
        gist = gist_tokens(form.window)
        fits = form.window + gist <= room
        return room // gist * form.window if fits else 0, f", and {form.window} tokens take {gist} of a summary"
    # The lowest compression that can be selected; text read at ratio 0 in addition is reported when it is read.
    ratio = min((ratio for ratio in form.ratios if ratio), default=0)
    if positions == "token" or not ratio:
        return room, ""
    # Attended beacons are found by reading a window a second time, directly after itself.
    behind = form.window if form.placement == ATTENDED else -(-form.window // ratio)
    window = form.window + behind + form.sink
    return max(0, room - window) * ratio, f" and {window} for the open window, and {ratio} tokens share a slot"


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
            _at_most(room, "generation"),
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
        *_untrained_ratios(spec.memory),
        *_untrained_positions(spec.memory),
        *_connections_without_airflow(spec),
    ]


def _connections_without_airflow(spec: CorpusSpec) -> Iterator[str]:
    named = connections_of(spec)
    if named and importlib.util.find_spec("airflow") is None:
        yield f"connection_id {', '.join(named)}: Airflow is not installed here, so commands here cannot use it"


def _untrained_ratios(memory: MemorySpec) -> Iterator[str]:
    """A ratio that the beacons were not trained for works, but nothing is known of its quality."""
    if not KINDS[memory.kind].has_beacons or memory.ratios is None:
        return
    try:
        config = {} if memory.adapter else read_config(memory.model, memory.revision)
        if not memory.adapter and "beacon_ratio" not in config:
            return
        trained = _trained(memory, config).ratios
    except (NotFoundError, CorruptBlobError, MemoryConfigError, MissingDependencyError):
        return  # one of the problems
    others = [ratio for ratio in memory.ratios if ratio and ratio not in trained]
    if others:
        yield (
            f"memory.ratio {', '.join(map(str, others))}: {memory.adapter or memory.model} was trained for"
            f" {', '.join(map(str, trained))}, and how good its memories are at another ratio has not been measured;"
            " use one of these, or measure it with memorag eval"
        )


def _untrained_positions(memory: MemorySpec) -> Iterator[str]:
    """Positions that the model, or the adapter's beacons, have not seen in training."""
    if memory.context is None:
        return
    try:
        config = read_config(memory.model, memory.revision)
        known = context_length(config)
        trained = "" if memory.adapter is None else _trained(memory, config).rope_scaling
    except (NotFoundError, CorruptBlobError, MemoryConfigError, MissingDependencyError):
        return  # one of the problems
    if memory.rope_scaling is None and memory.context > known:
        yield (
            f"memory.context {memory.context}: {memory.model} has {known} positions by its config.json, and how good"
            " its memories are beyond them has not been measured; rope_scaling: yarn spreads the rotation that it"
            " knows, and memorag eval measures both"
        )
    if memory.rope_scaling is not None and memory.adapter is not None and not trained:
        yield (
            f"memory.rope_scaling {memory.rope_scaling}: {memory.adapter} was trained without it, and how good its"
            " memories are with it has not been measured; measure it with memorag eval, or train with rope_scaling"
        )


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


def _at_most(room: int, role: str) -> str:
    return f"use at most {room}" if room >= 64 else f"use a {role} model with a longer context"


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
