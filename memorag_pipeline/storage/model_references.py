"""What a manifest names outside of its store: the models that open it.

In:  a manifest.
Out: nothing, when all that it names may be taken from a manifest that anybody may have written.
Wrong: a local path or a URL: `UntrustedReferenceError` that names all of them and how to allow them.

A model inside a known package and one of the Hugging Face hub may be named by anybody: only safetensors weights and
configuration are read of them, never code. A path or a URL would make the reader open what the writer of the manifest
chose, with the reader's own rights and network: docs/decisions/0015 says more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from memorag_pipeline.errors import CorruptBlobError, UntrustedReferenceError
from memorag_pipeline.specs.values import Language, is_hub_id
from memorag_pipeline.storage.manifest import Manifest

_SECTIONS = ("memory", "embedding")
_KEYS = ("model", "adapter")
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def require_known_references(manifest: Manifest, where: str, remedy: str) -> None:
    """Refuse a manifest that names models by path or URL; `where` is it from, and `remedy` says how to allow it."""
    known_language(manifest, where)
    named = [f"{key} {reference!r}" for key, reference in _references(manifest.spec) if not _is_known(key, reference)]
    if named:
        raise UntrustedReferenceError(
            f"{where}: the manifest names {', '.join(named)}, which would be opened on this machine or fetched from"
            f" there; if you trust whoever wrote it, {remedy}"
        )


def known_language(manifest: Manifest, where: str = "a version") -> Language:
    """The manifest's language. Raises CorruptBlobError when it is none of ours."""
    for language in get_args(Language):
        if manifest.language == language:
            found: Language = language
            return found
    raise CorruptBlobError(f"{where}: the manifest's language is {manifest.language!r}; no release wrote that")


def _references(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in _SECTIONS:
        values = spec.get(section)
        if not isinstance(values, dict):
            continue
        for key in (*_KEYS, "revision"):
            if values.get(key) is not None:
                yield f"{section}.{key}", values[key]


def _is_known(key: str, reference: Any) -> bool:
    if not isinstance(reference, str):
        return False
    if key.endswith(".revision"):
        return _REVISION.fullmatch(reference) is not None
    return not key.endswith(".adapter") and (reference.startswith("package:") or is_hub_id(reference))
