"""The kinds of memory that there are, by the name that a spec gives them."""

from __future__ import annotations

import functools
from typing import Any

from memorag_pipeline.memory.full import FullMemoryModel
from memorag_pipeline.memory.interface import MemoryModel
from memorag_pipeline.memory.language_model import load_language_model
from memorag_pipeline.spec import MemorySpec
from memorag_pipeline.spec_values import Language

_KINDS = {"full": FullMemoryModel}


@functools.cache
def load_memory_model(spec: MemorySpec, language: Language) -> MemoryModel[Any]:
    """The memory model that a spec asks for, loaded once per process."""
    language_model = load_language_model(spec.model, spec.revision, spec.dtype)
    return _KINDS[spec.kind](language_model, language, spec.window)
