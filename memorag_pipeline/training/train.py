"""Stage train: an adapter from texts and instructions, resumed at the newest checkpoint.

In:  the plan of a training.
Out: the adapter file and the history of the training, as the outcome of a unit.
Wrong: what the trainer raises; checkpoints keep the progress.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memorag_pipeline.models.references import resolve_file
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.storage import Outcome
from memorag_pipeline.training.measured_texts import held_out, text_tokens
from memorag_pipeline.training.plans import TrainedAdapter, TrainingPlan
from memorag_pipeline.training.stages import TRAIN
from memorag_pipeline.training.training import ADAPTER_FILE, Training

_MEASURED = 8  # held-out texts that show the progress of a training; all of them are read at the end


def train(training: Training, plan_uri: str) -> dict[str, Any]:
    """Train, from the newest checkpoint of the same run on, unless it was done before."""
    plan, store = training.read_work(plan_uri, TrainingPlan), training.store
    found = store.units.find(TRAIN.outcomes, plan.fingerprint)
    if found is None:
        found = _trained(training, plan)
    trained = TrainedAdapter(fingerprint=plan.fingerprint, model=plan.model, outcome=found)
    return {"trained": training.write_work(trained), "counts": dict(found.counts)}


def _trained(training: Training, plan: TrainingPlan) -> Outcome:
    """Train; the outcome's history has the curve, what was skipped, and where it was trained."""
    import torch

    from memorag_pipeline.memory.engine.language_model import load_language_model
    from memorag_pipeline.training.adapter import write_adapter
    from memorag_pipeline.training.checkpoints import Checkpoints
    from memorag_pipeline.training.parameters import trainable
    from memorag_pipeline.training.trainer import Stage, Trainer

    spec, store = training.spec, training.store
    if plan.studied is not None:
        studied = store.blobs.open_file(plan.studied, "instructions of the self-study")
        data = spec.data.model_copy(update={"instructions": [*spec.data.instructions, str(studied)]})
        spec = spec.model_copy(update={"data": data})
    model = load_language_model(
        spec.model, spec.revision, spec.dtype, context=spec.context, rope_scaling=spec.rope_scaling
    )
    begin = resolve_file(spec.begin_with) if spec.begin_with is not None else None
    parameters = trainable(model, spec, begin)
    skipped: dict[tuple[str, int], Counter[str]] = {}
    stages = [Stage(*stage) for stage in _stages(spec, model, skipped)]
    for stage in stages:
        next(iter(stage.sequences(0)))  # otherwise a stage without data would be noticed only after the others
    skipped.clear()
    trainer = Trainer(model, parameters, spec, Checkpoints(store, plan.fingerprint), _measure(spec, model, parameters))
    position = trainer.train(stages)
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
    left_out = _in_an_epoch(skipped)
    history = {"curve": [asdict(point) for point in position.curve], "skipped": left_out, "device": device}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ADAPTER_FILE
        write_adapter(path, parameters, model.resolved, spec, model.rope_scaling)
        blobs = {"adapter": store.blobs.put_file(path), "history": store.blobs.put_json(history)}
    counts = {"tokens": position.curve[-1].tokens, "skipped": sum(left_out.values())}
    return store.units.record(
        Outcome(
            stage=TRAIN.outcomes, fingerprint=plan.fingerprint, blobs=blobs, counts=counts, seconds=position.seconds
        )
    )


def _stages(
    spec: TrainingSpec, model: Any, skipped: dict[tuple[str, int], Counter[str]]
) -> list[tuple[str, int, float, Callable[[int], Any]]]:
    """Texts, then instructions if there are any; what is left out is counted in `skipped`, by stage and epoch."""
    from memorag_pipeline.memory.stream import StreamFormat
    from memorag_pipeline.training.data import instruction_sequences, text_sequences

    def counted(stage: str, epoch: int) -> Counter[str]:
        skipped[stage, epoch] = Counter()
        return skipped[stage, epoch]

    schedule, tokenizer = spec.schedule, model.tokenizer
    end_id = min(model.end_ids)
    stages: list[tuple[str, int, float, Callable[[int], Any]]] = [
        (
            "texts",
            schedule.tokens,
            schedule.learning_rate,
            lambda epoch: text_sequences(spec, tokenizer, end_id, counted("texts", epoch), epoch),
        )
    ]
    if schedule.instruction_tokens and spec.data.instructions:
        formats = {language: StreamFormat.of(tokenizer, language) for language in ("en", "zh")}
        stages.append(
            (
                "instructions",
                schedule.instruction_tokens,
                schedule.instruction_rate,
                lambda epoch: instruction_sequences(spec, formats, counted("instructions", epoch), epoch),  # type: ignore[arg-type]
            )
        )
    return stages


def _in_an_epoch(skipped: dict[tuple[str, int], Counter[str]]) -> dict[str, int]:
    """What was left out of each stage, in the epoch that was read furthest; every epoch reads the same files."""
    stages = {stage for stage, _ in skipped}
    most = (
        max((found for (name, _), found in skipped.items() if name == stage), key=Counter.total) for stage in stages
    )
    return dict(sum(most, Counter[str]()))


def _measure(spec: TrainingSpec, model: Any, parameters: Any) -> Callable[[], float]:
    """Measures the share of the gap that the current parameters close, on a few held-out texts."""
    from memorag_pipeline.evaluation.gap import gap, losses, with_all, without_context
    from memorag_pipeline.training.parameters import memory_model

    texts = held_out(spec, model, _MEASURED)
    beacons = memory_model(model, parameters, spec)
    asked = text_tokens(model) // 4
    nothing, full = without_context(model, texts, asked), with_all(model, texts, asked)
    return lambda: gap(nothing, losses(beacons, texts, asked), full).closed
