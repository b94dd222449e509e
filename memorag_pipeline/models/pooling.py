"""How an embedding model pools its vectors: as it declares, or as a spec says.

In:  a spec's section `embedding`; the model's sentence-transformers files, such as `1_Pooling/config.json`.
Out: the section with a pooling; notes on a model that declares something else.
Wrong: a model that declares an unsupported pooling, if the spec says none: `ModelError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memorag_pipeline.errors import ModelError
from memorag_pipeline.models.references import place_of
from memorag_pipeline.specs.retrieval import EmbeddingSpec

Pooling = Literal["cls", "mean", "last_token"]
_USUAL: Pooling = "cls"
_BUILT: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_POOLING = "1_Pooling"
# sentence-transformers modules that do not change what is computed here.
_HARMLESS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Declared:
    """A model's declaration: its pooling if supported, the name of another one, the modules after it."""

    pooling: Pooling | None = None
    other: str = ""
    modules: tuple[str, ...] = ()


def settled(spec: EmbeddingSpec) -> EmbeddingSpec:
    """The section with its pooling: the spec's, else the model's own, else cls."""
    if spec.pooling is not None:
        return spec
    declared = declared_by(spec.model, spec.revision)
    if declared.other:
        raise ModelError(
            f"model {spec.model}: declares the pooling {declared.other}, which is not built; set embedding.pooling to"
            " cls, mean or last_token, or use another model"
        )
    return spec.model_copy(update={"pooling": declared.pooling or _USUAL})


def remarks(spec: EmbeddingSpec) -> list[str]:
    """What people should know about the section's pooling, one line per note."""
    declared = declared_by(spec.model, spec.revision)
    said = declared.pooling or declared.other
    told = []
    if spec.pooling is not None and said and said != spec.pooling:
        told.append(
            f"embedding.pooling is {spec.pooling}, but {spec.model} declares {said}; leave it out to pool as the model"
            " was trained"
        )
    if spec.pooling is None and declared.pooling not in (None, _USUAL):
        told.append(f"embedding.pooling is {declared.pooling}, as {spec.model} declares")
    if declared.modules:
        told.append(
            f"{spec.model} declares {', '.join(declared.modules)} behind its pooling, which is not computed here; its"
            " vectors are those before"
        )
    return told


def declared_by(model: str, revision: str | None = None) -> Declared:
    """The declaration in a model's files."""
    modules = _read(model, "modules.json", revision)
    entries = [entry for entry in modules if isinstance(entry, Mapping)] if isinstance(modules, list) else []
    kinds = [(str(entry.get("type")).rpartition(".")[2], str(entry.get("path") or "")) for entry in entries]
    folder = next((path for kind, path in kinds if kind == "Pooling" and path), _POOLING)
    config = _read(model, f"{folder}/config.json", revision)
    others = tuple(kind for kind, _ in kinds if kind not in _HARMLESS)
    if not isinstance(config, Mapping):
        return Declared(modules=others)
    mode = config.get("pooling_mode")
    named = [mode] if isinstance(mode, str) else [str(each) for each in mode] if isinstance(mode, list) else None
    modes = named if named is not None else [name for flag, name in _FLAGS.items() if config.get(flag)]
    if len(modes) == 1 and modes[0] in _BUILT:
        return Declared(_BUILT[modes[0]], modules=others)
    return Declared(other=" and ".join(modes), modules=others)


def _read(model: str, name: str, revision: str | None) -> Any:
    """A JSON file of a model; None if there is none."""
    import fsspec

    place = place_of(model, name, revision)
    try:
        with fsspec.open(place, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise ModelError(f"model {model}: {place} is not JSON; fetch the model's files again") from error
