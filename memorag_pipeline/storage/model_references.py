"""What a manifest names outside of its store: the models that open it.

In:  a manifest, and which of its models will be opened.
Out: nothing, if all of their names are acceptable in a manifest from an untrusted writer.
Wrong: a local path or a URL: `UntrustedReferenceError` that names all of them and how to allow them.

A model or adapter inside a known package and a model of the Hugging Face hub are acceptable from any writer: only
safetensors weights and configuration are read from them, never code. A path or a URL would make the reader open what
the writer of the manifest chose, with the reader's own rights and network; see docs/decisions/0015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from memorag_pipeline.errors import CorruptBlobError, UntrustedReferenceError
from memorag_pipeline.specs.values import Language, is_hub_id
from memorag_pipeline.storage.manifest import Manifest

ModelSection = Literal["memory", "embedding"]
_KEYS = ("model", "adapter")
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def require_known_references(
    manifest: Manifest, where: str, remedy: str, sections: Sequence[ModelSection] = get_args(ModelSection)
) -> None:
    """Refuse a manifest that names models of `sections` by path or URL.

    `where` is it from, and `remedy` says how to allow it.
    """
    known_language(manifest, where)
    named = [
        f"{key} {reference!r}"
        for key, reference in _references(manifest.spec, sections)
        if not _is_known(key, reference)
    ]
    if named:
        raise UntrustedReferenceError(
            f"{where}: the manifest names {', '.join(named)}, which would be opened on this machine or fetched from"
            f" there; if you trust whoever wrote it, {remedy}"
        )


def known_language(manifest: Manifest, where: str = "a version") -> Language:
    """The manifest's language. Raises CorruptBlobError if it is not a supported one."""
    for language in get_args(Language):
        if manifest.language == language:
            found: Language = language
            return found
    raise CorruptBlobError(f"{where}: the manifest's language is {manifest.language!r}; no release wrote that")


def _references(spec: dict[str, Any], sections: Sequence[ModelSection]) -> Iterator[tuple[str, Any]]:
    for section in sections:
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
    # A package's name is looked up among the known ones; it is not a path.
    return reference.startswith("package:") or (not key.endswith(".adapter") and is_hub_id(reference))
