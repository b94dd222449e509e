"""A training in this process: the same stage functions as the Airflow tasks, one after the other.

In:  a `Training`, the id of the run, and who runs it.
Out: a `TrainResult`.
Wrong: whatever a stage raises; a second call resumes at the newest checkpoint.

Started by `accelerate launch` in several processes, all of them train, and the first one does everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

from memorag_pipeline.storage.outages import patience
from memorag_pipeline.training.evaluate import evaluate
from memorag_pipeline.training.prepare import prepare
from memorag_pipeline.training.register import promote, register
from memorag_pipeline.training.study import study
from memorag_pipeline.training.train import train as train_adapter
from memorag_pipeline.training.training import Training


@dataclass(frozen=True)
class TrainResult:
    """The version that holds the adapter; `gaps` by memory and ratio on `texts` texts, `report` the URI of an HTML
    page."""

    version: int
    created: bool
    promoted: bool
    why: str
    uri: str
    report: str
    gaps: dict[str, dict[int, float]]
    texts: int


def train(training: Training, run_id: str, by: str) -> TrainResult | None:
    """Prepare, study, train, evaluate, register and, if it is better, promote an adapter.

    None in a process that only helped to train it.
    """
    with patience():
        return _train(training, run_id, by)


def _train(training: Training, run_id: str, by: str) -> TrainResult | None:
    import torch
    from accelerate import PartialState

    processes = PartialState(cpu=not torch.cuda.is_available())
    with processes.main_process_first():
        studied = study(training, prepare(training)["plan"])
    trained = train_adapter(training, studied["plan"])
    if not processes.is_main_process:
        return None
    evaluated = evaluate(training, trained["trained"])
    registered = register(training, evaluated["evaluated"], run_id)
    promoted = promote(training, registered["version"], by)
    manifest = training.store.versions.manifest(registered["version"])
    (evaluation,), (report,) = manifest.of_role("evaluation"), manifest.of_role("report")
    gaps: dict[str, dict[int, float]] = {}
    measured = training.store.blobs.get_json(evaluation.ref, "evaluation")
    for row in measured["memories"]:
        gaps.setdefault(row["memory"], {})[row["ratio"]] = row["gap"]["closed"]
    return TrainResult(
        version=registered["version"],
        created=registered["created"],
        promoted=promoted["promoted"],
        why=promoted["why"],
        uri=registered["uri"],
        report=training.store.blobs.uri(report.ref),
        gaps=gaps,
        texts=measured["texts"],
    )
