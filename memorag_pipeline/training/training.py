"""The argument of every stage of a training: the spec, and the store of its adapter.

The adapter is a versioned artifact like a corpus: blobs, manifest, commit record, channels. Its units are `study`,
whose outcome is a file of instructions, `train`, whose outcome is the adapter file, and `evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass

from memorag_pipeline.pipeline import Workplace
from memorag_pipeline.specs.store import StoreSpec
from memorag_pipeline.specs.training import TrainingSpec

ADAPTER_FILE = "adapter.safetensors"


@dataclass(frozen=True)
class Training(Workplace):
    """A training spec and the store of its adapter."""

    spec: TrainingSpec

    @property
    def place(self) -> tuple[StoreSpec, str]:
        """The spec's store, and the adapter."""
        return self.spec.store, self.spec.adapter
