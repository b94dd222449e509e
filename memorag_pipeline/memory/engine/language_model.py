"""A decoder loaded for reading streams and writing replies, once per process.

In:  a model reference, a revision, a dtype.
Out: a `LanguageModel` on the GPU if there is one, otherwise on the CPU.
Wrong: an unknown model, one whose attention is not what `attention` computes, or one whose weights are not whole, is
       refused by name.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from memorag_pipeline.errors import MemoragError, MissingDependencyError
from memorag_pipeline.machine.forks import one_thread_after_fork, require_device
from memorag_pipeline.memory.engine.device import require_format
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.context import Yarn, context_length, has_beacons, yarn_for
from memorag_pipeline.models.loading import loaded_once
from memorag_pipeline.models.references import MODEL_TYPES, ResolvedModel, read_config, resolve
from memorag_pipeline.models.whole_weights import load_whole, require_tokens
from memorag_pipeline.specs.values import RopeScaling

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder and what is known of it. `context` is in positions; `end_ids` are the tokens that end a reply.

    `yarn` is the scaling of its rotation, if a spec adds one to what its configuration says.
    """

    model: Any
    tokenizer: ChatTokenizer
    device: torch.device
    dtype: torch.dtype
    resolved: ResolvedModel
    context: int
    end_ids: frozenset[int]
    yarn: Yarn | None = None

    @functools.cached_property
    def network(self) -> Network:
        """The decoder's layers, without beacons."""
        return Network(self.model)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def rope_scaling(self) -> str:
        """What a spec adds to its rotation, as memories and adapters record it."""
        return "" if self.yarn is None else str(self.yarn)

    @property
    def kv_heads(self) -> int:
        """Key/value heads of a layer."""
        return int(self.model.config.num_key_value_heads)


def load_language_model(
    model: str,
    revision: str | None = None,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    context: int | None = None,
    rope_scaling: RopeScaling | None = None,
) -> LanguageModel:
    """The decoder that a reference names, with transformers' own classes; code that comes with a model is never run.

    `quantization` (int8 or int4, by bitsandbytes) is of the weights alone and needs a GPU. `context` and `rope_scaling`
    are those of a memory; models that differ in nothing else share their weights.
    """
    require_device()
    loaded = _load(resolve(model, revision), dtype, quantization)
    return loaded if context is None else _with_context(loaded, context, rope_scaling)


def _with_context(loaded: LanguageModel, context: int, rope_scaling: RopeScaling | None) -> LanguageModel:
    if rope_scaling is None:
        return replace(loaded, context=context)
    yarn = yarn_for(read_config(str(loaded.resolved.folder)), context)
    return replace(loaded, model=_rotated_by(loaded.model, yarn), context=context, yarn=yarn)


def _rotated_by(model: Any, yarn: Yarn) -> Any:
    """The same weights under another rotation; `model` itself is not changed."""
    config = copy.deepcopy(model.config)
    config.rope_parameters = {
        "rope_theta": model.config.rope_parameters["rope_theta"],
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original,
    }
    turned, decoder = _twin(model), _twin(model.get_decoder())
    rotary = decoder.rotary_emb
    decoder.rotary_emb = type(rotary)(config).to(rotary.inv_freq.device)
    turned.config = decoder.config = config
    setattr(turned, model.base_model_prefix, decoder)
    return turned


def _twin(module: Any) -> Any:
    """A module with the same submodules, which may then be replaced."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


@loaded_once
def _load(resolved: ResolvedModel, dtype: str, quantization: str | None) -> LanguageModel:
    config = read_config(str(resolved.folder))
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise MemoragError(
            f"model {resolved.name}: models of type {model_type!r} are not supported;"
            f" use one of: {', '.join(MODEL_TYPES)}"
        )
    one_thread_after_fork(torch.set_num_threads)
    transformers_logging.disable_progress_bar()
    # transformers reports every tensor that its own class does not know; a checkpoint's beacon parameters are such.
    transformers_logging.set_verbosity_error()
    if config.get("sliding_window") and has_beacons(config):
        logger.info(
            "model %s: the sliding window of %s tokens in its config.json is that of the base model, which a memory of"
            " beacons does not apply",
            resolved.name,
            config["sliding_window"],
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require_format(device, getattr(torch, dtype))
    loaded = load_whole(
        AutoModelForCausalLM,
        resolved.folder,
        resolved.name,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        **_placed(device),
        **_quantized(quantization, getattr(torch, dtype)),
    )
    loaded = (loaded if quantization else loaded.to(device)).eval().requires_grad_(False)
    tokenizer = ChatTokenizer(resolved.folder)
    require_tokens(loaded, resolved.folder, resolved.name)
    return LanguageModel(
        model=loaded,
        tokenizer=tokenizer,
        device=device,
        dtype=getattr(torch, dtype),
        resolved=resolved,
        context=context_length(loaded.config.to_dict()),
        end_ids=_end_ids(loaded.generation_config.eos_token_id, loaded.config.eos_token_id, tokenizer.turn_end),
    )


def _placed(device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that put weights on the GPU of this process while they are read, where accelerate
    is there to do it: otherwise all of them are in RAM first."""
    if device.type != "cuda" or importlib.util.find_spec("accelerate") is None:
        return {}
    return {"device_map": {"": torch.cuda.current_device()}}


def _quantized(quantization: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights in fewer bits."""
    if quantization is None:
        return {}
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"memory.quantization {quantization} needs an NVIDIA GPU and the package bitsandbytes;"
            " leave it out, or pip install bitsandbytes on a machine with a GPU"
        )
    from transformers import BitsAndBytesConfig

    bits: dict[str, dict[str, Any]] = {
        "int8": {"load_in_8bit": True},
        "int4": {"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype},
    }
    return {"quantization_config": BitsAndBytesConfig(**bits[quantization])}


def _end_ids(*found: int | list[int] | None) -> frozenset[int]:
    ids: set[int] = set()
    for value in found:
        if value is not None:
            ids.update([value] if isinstance(value, int) else value)
    return frozenset(ids)
