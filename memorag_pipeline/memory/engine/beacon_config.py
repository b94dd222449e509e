"""The form of a beacon memory, as a checkpoint or an adapter describes itself.

In:  the beacon fields of a checkpoint's config.json, or the metadata of an adapter file.
Out: a `BeaconConfig`.
Wrong: unsupported modes (append placement, step-expansion, segmentation, overlapping windows, skipped tokens) are
       refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memorag_pipeline.errors import MemoryConfigError, MemoryMismatchError
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.memory_kinds import KINDS

WINDOW, RATIO = 1024, 4
INPUTS = ("embedding", "copy")
INTERLEAVE, ATTENDED = PLACEMENTS = ("interleave", "attended")


@dataclass(frozen=True)
class BeaconConfig:
    """Window and sink in tokens, candidate ratios and how one is chosen, the projections that beacons own.

    `embed_init` names the special token (eos or bos) whose embedding an untrained beacon gets. `input` is a beacon's
    input to the first layer: its own embedding or, as a copy of the token before it, also that token's embedding.
    `placement` is where beacons are: `interleave` after every ratio-th token, `attended` at the most attended tokens.
    `rope_scaling` is what was added to the model's own rotation when they were trained.
    """

    window: int = WINDOW
    ratios: tuple[int, ...] = (RATIO,)
    ratio_mix: str = "sequence"
    sink: int = 0
    projections: tuple[str, ...] = ("q", "k", "v")
    embed_init: str = "eos"
    input: str = "embedding"
    placement: str = INTERLEAVE
    rope_scaling: str = ""

    @classmethod
    def of(cls, described: Mapping[str, Any], where: str) -> BeaconConfig:
        """From fields named beacon_*, as in config.json; a field that is not there gets the default.

        Numbers and lists may be strings, as in an adapter's metadata. `where` names the file for messages.
        """
        fields = {
            name.removeprefix("beacon_"): value for name, value in described.items() if name.startswith("beacon_")
        }
        _require_built(fields, where)
        plain = cls()
        config = cls(
            window=_number(fields, "window", plain.window, where),
            ratios=tuple(_listed(fields, "ratio", plain.ratios, where)),
            ratio_mix=str(fields.get("ratio_mix", plain.ratio_mix)),
            sink=_number(fields, "sink_size", plain.sink, where),
            projections=tuple(_split(fields.get("param", plain.projections))),
            embed_init=str(fields.get("embed_init", plain.embed_init)),
            input=str(fields.get("input", plain.input)),
            placement=str(fields.get("pos", plain.placement)),
            rope_scaling=str(fields.get("rope_scaling", plain.rope_scaling)),
        )
        if config.input not in INPUTS:
            raise MemoryConfigError(
                f"{where}: beacon_input {config.input!r} is not one of {', '.join(INPUTS)}; use a later release, or"
                " another adapter"
            )
        if config.placement == ATTENDED and not set(config.projections) <= {"k", "v"}:
            raise MemoryConfigError(
                f"{where}: beacon_param {' '.join(config.projections)!r}: attended beacons are tokens as they are, with"
                " projections k and v of their own; leave the others out, or use beacon_pos interleave"
            )
        if config.window < 1 or config.sink < 0 or not config.ratios or min(config.ratios) < 0:
            raise MemoryConfigError(
                f"{where}: beacon_window {config.window}, beacon_sink_size {config.sink}, beacon_ratio"
                f" {list(config.ratios)}: a window is of 1 token or more, a sink of 0 or more, and there are ratios of"
                " 0 or more; correct the fields"
            )
        return config

    @classmethod
    def untrained(cls, spec: MemorySpec) -> BeaconConfig:
        """The form of a memory of an untrained kind."""
        traits = KINDS[spec.kind]
        form = cls(sink=traits.sink).over(spec)
        return form if traits.compresses else replace(form, ratios=(0,))

    def over(self, spec: MemorySpec) -> BeaconConfig:
        """This form, where a spec does not say otherwise."""
        return replace(
            self,
            window=spec.window or self.window,
            ratios=spec.ratios or self.usual_ratios,
            ratio_mix=spec.ratio_mix,
            sink=self.sink if spec.sink is None else spec.sink,
        )

    def require_rotation(self, rope_scaling: str, where: str) -> None:
        """Raise MemoryMismatchError if they were trained with another rope scaling than that of the memory.

        Those that were trained without one may be used with it.
        """
        if self.rope_scaling and self.rope_scaling != rope_scaling:
            raise MemoryMismatchError(
                f"{where}: was trained with the rope scaling {self.rope_scaling}, but the memory has"
                f" {rope_scaling or 'none'}; set memory.rope_scaling and memory.context as they were in its training"
            )

    @property
    def usual_ratios(self) -> tuple[int, ...]:
        """The default ratio: the trained one; of several the one that MemoRAG uses, or the first."""
        return self.ratios if len(self.ratios) == 1 else (RATIO if RATIO in self.ratios else self.ratios[0],)


def _number(fields: Mapping[str, Any], name: str, default: int, where: str) -> int:
    return next(iter(_listed(fields, name, (default,), where)))


def _listed(fields: Mapping[str, Any], name: str, default: Sequence[int], where: str) -> list[int]:
    try:
        return [int(value) for value in _split(fields.get(name, default))]
    except (TypeError, ValueError) as error:
        raise MemoryConfigError(
            f"{where}: beacon_{name} {fields[name]!r} is not made of whole numbers; correct it"
        ) from error


def _split(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return value if isinstance(value, Sequence) else (value,)


def _require_built(fields: Mapping[str, Any], where: str) -> None:
    """Refuse modes that are not built. `parallel_window` only changes how the reference computes the same."""
    window = _number(fields, "window", WINDOW, where)
    refused = {
        "pos": fields.get("pos", INTERLEAVE) not in PLACEMENTS,
        "attn": fields.get("attn", "full-coverage") != "full-coverage",
        "stride": _number(fields, "stride", window, where) != window,
        "skip_first": fields.get("skip_first") is not None,
        "skip_last": fields.get("skip_last") is not None,
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise MemoryConfigError(
                f"{where}: beacon_{name} {fields[name]!r} is not supported: beacons are interleaved or attended"
                " (beacon_pos), with full coverage (beacon_attn full-coverage), in windows that do not overlap"
                " (beacon_stride as beacon_window), and no tokens are skipped; use a checkpoint of that mode"
            )
