"""transformers models, loaded completely or not at all: missing values are never made up.

In:  a transformers class, and the folder of a model.
Out: the model, with all of its parameters read and finite.
Wrong: parameters that are missing, of another shape, or not finite, and files that cannot be read: `ModelError`.

transformers itself initializes missing parameters at random, with only a warning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from memorag_pipeline.errors import ModelError
from memorag_pipeline.models.tokens import highest_token
from memorag_pipeline.models.weights import named_some, require_vocabulary

_REMEDY = "fetch the model's files again, or use another model"
# Not used when the last hidden states are pooled.
POOLER = re.compile(r"(?:^|\.)pooler\.")


def load_whole(kind: Any, folder: Path, model: str, spare: re.Pattern[str] | None = None, **arguments: Any) -> Any:
    """The model in `folder`, read by `kind.from_pretrained`; `model` names it in errors.

    Parameters that `spare` matches may be missing.
    """
    with _load_errors(model):
        loaded, told = kind.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, trust_remote_code=False, **arguments
        )
    _require_all(told, model, spare)
    _require_numbers(loaded, model)
    return loaded


def _require_numbers(loaded: Any, model: str) -> None:
    """Raise ModelError if a parameter is NaN or infinite somewhere."""
    bad = [
        name
        for name, tensor in loaded.named_parameters()
        if tensor.is_floating_point() and tensor.numel() and not are_numbers(tensor)
    ]
    if bad:
        raise ModelError(f"model {model}: there are values in {named_some(bad)} that are no numbers; {_REMEDY}")


def are_numbers(tensor: torch.Tensor) -> bool:
    """Whether no value of a tensor is NaN or infinite."""
    least, most = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(least) & torch.isfinite(most))


def require_tokens(loaded: Any, folder: Path, model: str) -> None:
    """Raise ModelError if the tokenizer in `folder` makes tokens that the model has no embedding for."""
    rows = loaded.get_input_embeddings().weight.shape[0]
    require_vocabulary(int(rows), highest_token(str(folder), model), model)


def _require_all(told: Mapping[str, Collection[Any]], model: str, spare: re.Pattern[str] | None) -> None:
    missing = [name for name in told["missing_keys"] if spare is None or not spare.search(name)]
    if missing:
        raise ModelError(f"model {model}: its weights lack {named_some(missing)}; {_REMEDY}")
    if told["mismatched_keys"]:
        wrong = named_some(entry[0] for entry in told["mismatched_keys"])
        raise ModelError(f"model {model}: {wrong}: of another shape than config.json asks for; {_REMEDY}")


@contextmanager
def _load_errors(model: str) -> Iterator[None]:
    """Errors of reading a model as one error that names it; an out-of-memory error of a device is raised unchanged."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, ImportError, RuntimeError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"model {model}: cannot be loaded ({type(error).__name__}: {said}); {_REMEDY}") from error
