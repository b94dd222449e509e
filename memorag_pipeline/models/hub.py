"""Models of the Hugging Face hub, by id; pickled weights are converted once.

In:  an id, and optionally a revision.
Out: a folder with safetensors weights, configuration and tokenizer, and its commit.
Wrong: a model neither on this machine nor on the hub: `NotFoundError` that names the id; pickles that hold
       anything but tensors: `ModelError`.

Code of a repository is never fetched. Pickled weights (`pytorch_model.bin` or its shards, with them `sparse_linear.pt`)
are fetched only if there are no others, and read by a separate process, which gets no secrets and builds nothing but
tensors (`torch.load(weights_only=True)`). From then on the model is what that process wrote.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import ModelError, NotFoundError
from memorag_pipeline.models.model_cache import made_once, model_folder, use
from memorag_pipeline.models.weights import INDEX, SINGLE

SPARSE_LAYER, _PICKLED_LAYER = "sparse_linear.safetensors", "sparse_linear.pt"
# Files fetched of a model; never code, and pickled weights only if there are no others.
FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt")
_PICKLED_INDEX = "pytorch_model.bin.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", _PICKLED_LAYER)
_CONVERSION_VERSION = 1
_SECONDS = 10.0  # that the hub may take to describe a model
# The only environment variables of the converting process.
_ENVIRONMENT = ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TMPDIR", "VIRTUAL_ENV")
logger = logging.getLogger(__name__)


def model_folder_of(model: str, revision: str | None) -> tuple[Path, str]:
    """The folder of a model, fetched and converted if need be, and its commit."""
    folder = snapshot(model, revision, FETCHED)
    commit = folder.name
    if _has_weights(folder):
        return folder, commit
    converted = converted_folder(model, folder)
    if not use(converted) and _pickles(folder := snapshot(model, commit, [*FETCHED, *_PICKLED])):
        converted = _converted(model, folder)
    return (converted if converted.is_dir() else folder), commit


def whole_snapshot(model: str, revision: str | None) -> str | None:
    """The folder of a model if its safetensors weights are on this machine; the hub is not asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True, allow_patterns=list(FETCHED)))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None
    converted = converted_folder(model, folder)
    if converted.is_dir():
        return str(converted)
    return str(folder) if _has_weights(folder) else None


def snapshot(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a commit, with the files that match one of the patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    shown = f"{model} (revision {revision})" if revision else model
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _not_given(shown, error) from error


def told_of(model: str, revision: str | None, is_here: bool) -> str:
    """What the hub says of a model: gated or not, and its size if it is still to be fetched.

    Raises NotFoundError if the hub would not give it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi()
    try:
        found = api.model_info(model, revision=revision, files_metadata=not is_here, timeout=_SECONDS)
        gated = bool(found.gated)
        if gated:
            api.auth_check(model)
    except OfflineModeIsEnabled:
        return "the hub is not asked (HF_HUB_OFFLINE)"
    except Exception as error:  # those of the network are of whatever client the library has
        if is_here:
            return f"the hub does not give it ({type(error).__name__}), what is here is used"
        raise _not_given(model, error) from error
    size = sum(item.size or 0 for item in found.siblings or () if item.rfilename.endswith((".safetensors", ".bin")))
    fetched = "" if is_here else f", {bytes_text(size)} of weights are fetched at the first use"
    return f"{'gated, and open to you' if gated else 'not gated'}{fetched}"


def _not_given(shown: str, error: Exception) -> NotFoundError:
    """The error for a model that the hub does not give."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError):
        return NotFoundError(
            f"model {shown}: it is gated, and the Hugging Face hub does not give it to you; accept its terms on its"
            " page there, and set HF_TOKEN to a token of that account"
        )
    return NotFoundError(
        f"model {shown}: not on this machine, and the Hugging Face hub did not give it ({type(error).__name__});"
        " check the id, the revision, the network and HF_TOKEN, or give a local folder"
    )


def has_layer(model: str, revision: str | None) -> bool:
    """Whether a model has a sparse layer that is converted with it."""
    return (snapshot(model, revision, [_PICKLED_LAYER]) / _PICKLED_LAYER).exists()


def _has_weights(folder: Path) -> bool:
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


def _pickles(folder: Path) -> list[str]:
    """Names of the pickles in a snapshot to convert; none without weights."""
    single = folder / "pytorch_model.bin"
    weights = [single.name] if single.exists() else sorted(path.name for path in folder.glob("pytorch_model-*.bin"))
    layer = [_PICKLED_LAYER] if (folder / _PICKLED_LAYER).exists() and not (folder / SPARSE_LAYER).exists() else []
    return [*weights, *layer] if weights else []


def converted_folder(model: str, folder: Path) -> Path:
    """The folder of a snapshot's model after its pickles are converted."""
    return model_folder(f"{text_digest(f'{model}@{folder.name}')[:12]}-pickled{_CONVERSION_VERSION}")


def _converted(model: str, folder: Path) -> Path:
    """The model in `folder` with its pickles as safetensors, and all its other files."""

    def convert(part: Path) -> None:
        pickles = _pickles(folder)
        logger.warning(
            "model %s: %s %s pickled, and converted to safetensors once, into %s",
            model,
            ", ".join(pickles),
            "is" if len(pickles) == 1 else "are",
            target,
        )
        for path in folder.rglob("*"):
            if path.is_file() and any(path.match(pattern) for pattern in FETCHED) and path.name != _PICKLED_INDEX:
                (part / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, part / path.relative_to(folder))
        _run(model, folder, part, pickles)

    target = converted_folder(model, folder)
    return made_once(target, convert, f"{model}, converted from pickles")


def _run(model: str, folder: Path, part: Path, pickles: Sequence[str]) -> None:
    command = [sys.executable, "-m", "memorag_pipeline.models.convert_pickles", str(folder), str(part), *pickles]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise ModelError(
            f"model {model}: its pickled weights cannot be converted ({said[:300]}); use a model with safetensors"
            " weights"
        )
