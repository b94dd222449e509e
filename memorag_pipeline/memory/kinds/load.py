"""All kinds of memory, created as a spec asks for them.

In:  a spec's section `memory`, and the language of the corpus.
Out: a `MemoryModel`, loaded once per process.
Wrong: what finding and loading the model and the adapter raises; a form that does not fit together is refused.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from memorag_pipeline.memory.engine.language_model import load_language_model
from memorag_pipeline.memory.kinds.interface import MemoryModel
from memorag_pipeline.models.loading import loaded_once
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language

# For each kind of `specs.memory_kinds.KINDS` the function that creates its model from a spec, a language model and a
# language.
LOADERS = {
    "beacon": "memorag_pipeline.memory.kinds.attended:load_beacons",
    "selected": "memorag_pipeline.memory.kinds.selected:SelectedMemoryModel.load",
    "full": "memorag_pipeline.memory.kinds.full:FullMemoryModel.load",
    "gist": "memorag_pipeline.memory.kinds.gist:GistMemoryModel.load",
}


@loaded_once
def load_memory_model(spec: MemorySpec, language: Language) -> MemoryModel[Any]:
    """The memory model that a spec asks for, loaded once per process."""
    language_model = load_language_model(
        spec.model, spec.revision, spec.dtype, spec.quantization, spec.context, spec.rope_scaling
    )
    model: MemoryModel[Any] = resolve_name(LOADERS[spec.kind])(spec, language_model, language)
    return model
