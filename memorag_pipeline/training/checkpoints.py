"""Checkpoints of a training run: everything that it needs to resume, in the store, under the run's fingerprint.

In:  the tensors of parameters and optimizer, and the progress of the run.
Out: the newest checkpoint of the same settings, data and model.
Wrong: a failed write keeps the last checkpoint and reports that; an altered checkpoint is a `CorruptBlobError`.

A checkpoint is a safetensors file. A later one takes its place in the unit's record, not in the store, where the sweep
takes it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from memorag_pipeline.errors import StorageError
from memorag_pipeline.evaluation.curve import CurvePoint

if TYPE_CHECKING:
    from memorag_pipeline.storage import CorpusStore

_STAGE = "checkpoint"
_FILE = "checkpoint"


@dataclass(frozen=True)
class Position:
    """How far a run is: `steps` and `tokens` in the stage, `taken` sequences in its `epoch`; the curve so far."""

    stage: int = 0
    steps: int = 0
    tokens: int = 0
    epoch: int = 0
    taken: int = 0
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = field(default=())

    @classmethod
    def of_json(cls, text: str) -> Position:
        """From what `checkpoint` wrote."""
        values = json.loads(text)
        return cls(**values | {"curve": tuple(CurvePoint(**point) for point in values["curve"])})


class Checkpoints:
    """The checkpoints of one run. `fingerprint` covers settings, data and model."""

    def __init__(self, store: CorpusStore, fingerprint: str) -> None:
        self._store, self._fingerprint = store, fingerprint

    def newest(self) -> tuple[Position, dict[str, Tensor]] | None:
        """How far the run was, and its tensors on the CPU."""
        found = self._store.units.find(_STAGE, self._fingerprint)
        if found is None:
            return None
        path = self._store.blobs.open_file(found.blobs[_FILE], "checkpoint")
        with safe_open(path, framework="pt") as file:
            position = Position.of_json(file.metadata()["position"])
            return position, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)

    def write(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Make this the newest checkpoint."""
        from memorag_pipeline.storage import Outcome

        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "checkpoint.safetensors"
                save_file(
                    {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                    path,
                    metadata={"position": json.dumps(asdict(position))},
                )
                blob = self._store.blobs.put_file(path)
                self._store.units.record(
                    Outcome(
                        stage=_STAGE,
                        fingerprint=self._fingerprint,
                        blobs={_FILE: blob},
                        counts={"steps": position.steps, "tokens": position.tokens},
                        seconds=position.seconds,
                    )
                )
        except (OSError, StorageError) as error:
            raise StorageError(
                f"the checkpoint at step {position.steps} cannot be written to {self._store.uri} ({error}); the one"
                " before is kept: free some space, or fix the store, then train again to continue from there"
            ) from error
