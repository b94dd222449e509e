"""Section `memory`: the model that reads the corpus, and how much it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from memorag_pipeline.specs.memory_kinds import KINDS, kinds_with
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import (
    Codec,
    Context,
    Dtype,
    KeyOf,
    Model,
    Quantization,
    RatioMix,
    Ratios,
    RopeScaling,
    alternatives,
    revision_has_use,
)


def ratio_fits_kind(ratio: int | tuple[int, ...] | None, kind: str) -> str | None:
    if not KINDS[kind].compresses and ratio not in (None, 1):
        return f"needs a compressing memory; kind {kind} keeps every token that it reads"
    return None


def kind_has_one_ratio(ratio: int | tuple[int, ...] | None, kind: str) -> str | None:
    traits = KINDS[kind]
    if traits.compresses and not traits.several_ratios and (isinstance(ratio, tuple) or ratio == 0):
        return f"is not a single ratio of 1 or more, which kind {kind} needs"
    return None


def ratios_fit_window(ratio: int | tuple[int, ...] | None, window: int | None) -> str | None:
    several = ratio if isinstance(ratio, tuple) and len(ratio) > 1 else ()
    if several and window and all(each and window % each for each in several):
        return f"has no ratio that divides the window of {window} tokens, which picking from several needs"
    return None


def mix_has_use(ratio_mix: str, ratio: int | tuple[int, ...] | None) -> str | None:
    if ratio_mix != "sequence" and (not isinstance(ratio, tuple) or len(ratio) == 1):
        return "has no use without several ratios to pick from"
    return None


def policy_has_use(policy: str, kind: str) -> str | None:
    return "has no use in a memory of another kind" if policy != "attention" and not KINDS[kind].has_policy else None


def sink_fits_window(sink: int | None, window: int | None) -> str | None:
    return f"is larger than the window of {window} tokens" if sink and window and sink > window else None


def only_for_beacons(adapter: str | None, kind: str) -> str | None:
    return "has no use in a memory without beacons" if adapter is not None and not KINDS[kind].has_beacons else None


def only_for_compressed(sink: int | None, kind: str) -> str | None:
    return "has no use in a memory that keeps every token" if sink is not None and not KINDS[kind].compresses else None


def scaling_needs_context(rope_scaling: str | None, context: int | None) -> str | None:
    return "does not say to how many positions" if rope_scaling is not None and context is None else None


def left_out(value: object) -> bool:
    """Of a key that came later: dumps without it are those of before, and so are the fingerprints."""
    return value is None


class MemorySpec(Section):
    """The memory model and the form of the memory it makes."""

    rules = (
        Rule(("ratio", "kind"), ratio_fits_kind, "use ratio 1, or leave it out"),
        Rule(("ratio", "kind"), kind_has_one_ratio, "give one, or leave it out"),
        Rule(("ratio", "window"), ratios_fit_window, "use divisors of the window"),
        Rule(("ratio_mix", "ratio"), mix_has_use, "leave it out, or give several ratios"),
        Rule(("revision", "model"), revision_has_use, "leave it out"),
        Rule(("adapter", "kind"), only_for_beacons, f"leave it out, or use kind {kinds_with('has_beacons')}"),
        Rule(("sink", "kind"), only_for_compressed, f"leave it out, or use kind {kinds_with('compresses')}"),
        Rule(("sink", "window"), sink_fits_window, "make it smaller"),
        Rule(("rope_scaling", "context"), scaling_needs_context, "give context, the positions that are needed"),
        Rule(("policy", "kind"), policy_has_use, f"leave it out, or use kind {kinds_with('has_policy')}"),
    )

    kind: Annotated[str, KeyOf(KINDS)] = Field(default="full", description=alternatives(KINDS))
    model: Model = Field(
        description="Hugging Face id, local folder, object-store URI, or package:smollm2-135m-instruct."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    adapter: Model | None = Field(
        default=None,
        description="Kind beacon: safetensors file of beacon parameters, a local path or a URI; or ROOT@VERSION of one"
        " that was trained, where VERSION is a number or a channel.",
    )
    window: int | None = Field(
        default=None,
        ge=16,
        description="Tokens read at a time; a memory can be cut at these borders. Default: as the adapter or model was"
        " trained, else 1024.",
    )
    ratio: Ratios | None = Field(
        default=None,
        description="Raw tokens per memory slot, or several to pick from; 0 keeps all. Default: as trained; 4, if"
        " trained with several.",
    )
    ratio_mix: RatioMix = Field(
        default="sequence",
        description="How one of several ratios is picked: sequence, step-random, instance-random or adapt-N.",
    )
    sink: int | None = Field(
        default=None, ge=0, le=64, description="First slots of a memory that are always kept. Default: as trained."
    )
    policy: Literal["uniform", "recent", "attention"] = Field(
        default="attention", description="Kind selected: which slots of a window are kept."
    )
    context: Context | None = Field(
        default=None,
        exclude_if=left_out,
        description="Positions that slots and prompts may take. Default: those of the model's config.json, a rope"
        " scaling there included.",
    )
    rope_scaling: RopeScaling | None = Field(
        default=None,
        exclude_if=left_out,
        description="yarn: spread the model's rotation over context positions, more than it was trained for. Default:"
        " as its config.json says.",
    )
    dtype: Dtype = Field(default="bfloat16", description="Number format of the model and of the memory.")
    codec: Codec | None = Field(default=None, description="Number format of stored memories. Default: dtype.")
    quantization: Quantization | None = Field(
        default=None, description="The model's own weights in fewer bits; needs an NVIDIA GPU and bitsandbytes."
    )
    budget_mib: int | None = Field(
        default=None,
        ge=1,
        description="RAM or GPU memory for activations while memorizing. Default: a share of what is free.",
    )

    reproducible: bool | None = Field(
        default=None,
        description="Whether the bits of a memory are independent of what is memorized in the same batch. Default:"
        " true on CPUs, where it costs nothing with windows of 1024 tokens, and false on GPUs. With kind"
        " gist it covers only the reading, since summarizing windows one at a time takes several times as"
        " long.",
    )

    @property
    def context_decides(self) -> bool:
        """Whether a memory depends on `context`: by its rotation, or by ratios that adapt to the room."""
        return self.rope_scaling is not None or self.ratio_mix.startswith("adapt")

    @property
    def ratios(self) -> tuple[int, ...] | None:
        """The ratios that are given."""
        return (self.ratio,) if isinstance(self.ratio, int) else self.ratio
