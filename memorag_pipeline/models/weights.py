"""Checking the weight files of a model by their headers, without torch and without reading a tensor.

In:  the folder of a model, or its URI; its configuration.
Out: the tensors that transformers would read, by name.
Wrong: files that are not weights, are truncated or missing, or hold other tensors than the configuration requires:
       `ModelError` that names the file and the tensors. Nothing is ever substituted for them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import takewhile
from typing import Any

from memorag_pipeline.errors import CorruptBlobError, ModelError, NotFoundError
from memorag_pipeline.models.architectures import parameters_of
from memorag_pipeline.models.safetensors_header import read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_NUMBERS = {"F64", "F32", "F16", "BF16"}
_SHOWN = 3
# What a layer may hold in addition to its parameters: beacons, and values that are recomputed.
_HARMLESS = re.compile(r"beacon_|inv_freq$|position_ids$|masked_bias$|\.attn\.bias$|rotary_emb\.")
_LAYER = re.compile(r"(?:^|\.)layers?\.\d+\.")
_FETCH = "fetch the model's files again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its safetensors type and its shape."""

    dtype: str
    shape: tuple[int, ...]


def require_weights(
    place: str, model: str, config: Mapping[str, Any], options: dict[str, Any] | None = None
) -> dict[str, StoredTensor]:
    """The tensors at `place`; ModelError unless they are those that `config` requires, as far as known.

    `options` are fsspec's. For an unknown architecture only the files themselves are checked.
    """
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
        raise ModelError(
            f"model {model}: its weights are quantized ({method or 'in a way that it does not name'}); use the model"
            " that it was made of, whose weights memory.quantization can make smaller as they are loaded"
        )
    found = _without_aliases(stored_tensors(place, model, options))
    _require_numbers(found, model)
    parameters = parameters_of(config)
    if parameters is None:
        return found
    held = {parameters.short(name): tensor for name, tensor in found.items()}
    missing = [name for name in parameters.needed if name not in held]
    if missing:
        raise ModelError(f"model {model}: its weights lack {named_some(missing)}{_instead(found, missing, parameters)}")
    for name, shape in parameters.shapes.items():
        if name in held and held[name].shape != shape:
            raise ModelError(
                f"model {model}: {name} has shape {list(held[name].shape)}, but config.json asks for {list(shape)};"
                f" the two are not of one model: {_FETCH}"
            )
    known = parameters.shapes.keys()
    strange = [name for name in held if name not in known and _LAYER.search(name) and not _HARMLESS.search(name)]
    if strange:
        raise ModelError(
            f"model {model}: its weights hold {named_some(strange)}, for which config.json has no place;"
            f" the two are not of one model: {_FETCH}, or merge what was trained beside it"
        )
    return found


def stored_tensors(place: str, model: str, options: dict[str, Any] | None = None) -> dict[str, StoredTensor]:
    """The tensors of the safetensors files that transformers reads in a folder, path or URI."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(place, **(options or {}))
    root = root.rstrip("/")
    try:
        names = {path.rstrip("/").rpartition("/")[2] for path in filesystem.ls(root, detail=False)}
    except (OSError, FileNotFoundError) as error:
        raise NotFoundError(f"model {model}: {place} cannot be listed ({type(error).__name__})") from error
    if SINGLE in names:
        files, index = [SINGLE], None
    elif INDEX in names:
        index = _index(filesystem, f"{root}/{INDEX}", model)
        files = sorted(set(index.values()))
    else:
        raise NotFoundError(_no_weights(model, place, names))
    if missing := [name for name in files if name not in names]:
        raise ModelError(
            f"model {model}: {named_some(missing)} of the {len(files)} files that {INDEX} names"
            f" {'is' if len(missing) == 1 else 'are'} not in {place}; {_FETCH}"
        )
    found: dict[str, StoredTensor] = {}
    for name in files:
        for tensor, entry in _header(f"{place.rstrip('/')}/{name}", model, options).items():
            found[tensor] = StoredTensor(str(entry["dtype"]), tuple(entry["shape"]))
    if index is not None and (absent := [tensor for tensor in index if tensor not in found]):
        raise ModelError(f"model {model}: {INDEX} names {named_some(absent)}, which no file holds; {_FETCH}")
    return found


def embedded_tokens(found: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> int | None:
    """Rows of the embedding matrix of tokens, as far as the architecture is known."""
    parameters = parameters_of(config)
    if parameters is None:
        return None
    held = {parameters.short(name): tensor for name, tensor in found.items()}
    tensor = held.get(parameters.embedding)
    return None if tensor is None else tensor.shape[0]


def require_vocabulary(rows: int, highest: int, model: str) -> None:
    """Raise ModelError if the tokenizer of a model makes tokens for which the model has no embedding."""
    if highest >= rows:
        raise ModelError(
            f"model {model}: its tokenizer has token {highest:,}, but its embeddings are of {rows:,} tokens; use the"
            " tokenizer that belongs to the weights, or resize the embeddings and save the model"
        )


def named_some(names: Iterable[str]) -> str:
    """Some of these names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _header(uri: str, model: str, options: dict[str, Any] | None) -> dict[str, Any]:
    try:
        header = read_header(uri, options)
    except CorruptBlobError as error:
        raise ModelError(f"model {model}: {error}") from error
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _index(filesystem: Any, path: str, model: str) -> dict[str, str]:
    try:
        index = json.loads(filesystem.cat_file(path))["weight_map"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"model {model}: {path} is not an index of weights ({type(error).__name__}); {_FETCH}"
        ) from error
    if not isinstance(index, dict) or not all(isinstance(name, str) and "/" not in name for name in index.values()):
        raise ModelError(f"model {model}: {path} names files that are not beside it; {_FETCH}")
    return index


def _no_weights(model: str, place: str, names: Iterable[str]) -> str:
    others = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in PICKLED))
    beside = f" ({others[0]} is pickled)" if others else ""
    return (
        f"model {model}: no {SINGLE} and no {INDEX} in {place}{beside}; only safetensors weights are read from a"
        " folder, so save the model once with save_pretrained, or name it by its id on the Hugging Face hub"
    )


def _without_aliases(found: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors by current names: some old checkpoints call those of a layer norm gamma and beta."""
    return {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): tensor for name, tensor in found.items()}


def _require_numbers(found: Mapping[str, StoredTensor], model: str) -> None:
    """Refuse weights in types that only a quantizer can read."""
    others = Counter(
        tensor.dtype for name, tensor in found.items() if tensor.dtype not in _NUMBERS and name.endswith("weight")
    )
    if others:
        (kind, count), *_ = others.most_common()
        raise ModelError(
            f"model {model}: {count} of its weights are of type {kind}, as quantized ones are; use the model that it"
            " was made of, with weights of floating point"
        )


def _instead(found: Mapping[str, StoredTensor], missing: Iterable[str], parameters: Any) -> str:
    """The probable cause of missing tensors, and what to do."""
    levels = zip(*(name.split(".")[:-1] for name in found), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    prefix = "".join(f"{part}." for part in shared)
    bare = {parameters.short(name.removeprefix(prefix)) for name in found}
    if prefix and bare.issuperset(missing):
        return f"; all names begin with {prefix!r}, as of a model that was saved inside of another: save it by itself"
    return f", which config.json asks for; {_FETCH}"
