"""Checks of a spec's memory against its model, before any work and without loading it.

In:  a parsed spec and the configuration of its memory model, and the spec's file for messages.
Out: the problems and notes; the memory size of a token, and of a shard on a GPU.
Wrong: an adapter that cannot be read is one of the problems; nothing is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memorag_pipeline.errors import (
    CorruptBlobError,
    MemoryConfigError,
    MemoryMismatchError,
    MissingDependencyError,
    NotFoundError,
    SpecProblem,
)
from memorag_pipeline.memory import cost
from memorag_pipeline.memory import gpu_memory as gpu
from memorag_pipeline.memory.cost import TEXT_BYTES_PER_TOKEN, MemoryCost
from memorag_pipeline.memory.engine.beacon_config import ATTENDED, BeaconConfig
from memorag_pipeline.memory.gpu_memory import GpuMemory
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.models.context import context_length, yarn_for
from memorag_pipeline.models.references import read_config, read_safetensors_header
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.specs.memory import MemorySpec, ratios_fit_window, sink_fits_window
from memorag_pipeline.specs.memory_kinds import KINDS

# Room that a recall needs after the memory, in addition to the clues: the turns, the prompt and the question.
PROMPT_TOKENS = 512


def check_memory(spec: CorpusSpec, file: str, config: Mapping[str, Any]) -> list[SpecProblem]:
    """Problems of `spec` with its memories, made by a model of this configuration."""
    problems: list[SpecProblem] = []
    form = _form(problems, file, spec.memory, config)
    if form is not None:
        problems += _check_form(file, form)
        problems += _check_rotation(file, spec.memory, config, form)
        problems += _check_shards(spec, file, spec.memory.context or context_length(config), form)
    return problems


def memory_cost(spec: CorpusSpec, text_bytes_per_token: float = TEXT_BYTES_PER_TOKEN) -> MemoryCost | None:
    """The memory size of a token of text; None if a model or an adapter cannot be read, or does not say."""
    known = _known(spec)
    if known is None:
        return None
    config, form = known
    return cost.memory_cost(spec.memory, form, config, text_bytes_per_token)


def gpu_memory(spec: CorpusSpec) -> GpuMemory | None:
    """What a shard of full size takes of a GPU; None if a model or an adapter cannot be read, or does not say."""
    known = _known(spec)
    if known is None:
        return None
    config, form = known
    return gpu.gpu_memory(spec.memory, form, config, spec.sharding.max_tokens)


def memory_notes(memory: MemorySpec) -> list[str]:
    """Notes on memories that the model, or the adapter, was not trained for."""
    return [*_untrained_ratios(memory), *_untrained_positions(memory)]


def at_most(room: int, role: str) -> str:
    """What to do about more tokens than a model has room for."""
    return f"use at most {room}" if room >= 64 else f"use a {role} model with a longer context"


def _known(spec: CorpusSpec) -> tuple[dict[str, Any], BeaconConfig] | None:
    """The configuration of the memory model and the form of the memories, if these can be read."""
    try:
        config = read_config(spec.memory.model, spec.memory.revision)
    except (NotFoundError, MissingDependencyError):
        return None
    form = _form([], "", spec.memory, config)
    return None if form is None else (config, form)


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
        fix = at_most(room, "memory")
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
