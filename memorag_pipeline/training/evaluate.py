"""Stage evaluate: the adapter beside what needs no training, on texts and questions that it was not trained on.

In:  what train left.
Out: figures, report and model card, as the outcome of a unit.
Wrong: questions that cannot be read.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memorag_pipeline.models.references import resolve_file
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.storage import Outcome, fingerprint
from memorag_pipeline.training.measured_texts import held_out, text_tokens
from memorag_pipeline.training.plans import EvaluatedAdapter, TrainedAdapter
from memorag_pipeline.training.stages import EVALUATE
from memorag_pipeline.training.training import Training

EVALUATE_VERSION = 2  # to be raised when the same adapter would be measured in another way

logger = logging.getLogger(__name__)


def evaluate(training: Training, trained_uri: str) -> dict[str, Any]:
    """Measure the trained adapter beside the selections that need no training, and write the report."""
    from memorag_pipeline.evaluation.adapter import NEEDLES, evaluate_adapter
    from memorag_pipeline.evaluation.memories import AdapterUnderTest
    from memorag_pipeline.evaluation.report import CurvePoint, write_report
    from memorag_pipeline.memory.engine.language_model import load_language_model

    spec, store = training.spec, training.store
    trained = training.read_work(trained_uri, TrainedAdapter)
    outcome = trained.outcome
    adapter = outcome.blobs["adapter"]
    identity = fingerprint(
        EVALUATE.outcomes, EVALUATE_VERSION, adapter=adapter.digest, model=trained.model, spec=_measured(spec)
    )
    found = store.units.find(EVALUATE.outcomes, identity)
    if found is None:
        started = time.perf_counter()
        history = store.blobs.get_json(outcome.blobs["history"], "history of the training")
        model = load_language_model(
            spec.model, spec.revision, spec.dtype, context=spec.context, rope_scaling=spec.rope_scaling
        )
        texts = held_out(spec, model, spec.evaluation.texts)
        if len(texts) < spec.evaluation.texts:
            logger.warning(
                "%s: measured on %d held-out texts, not on %d as evaluation.texts says: there are no more; add texts,"
                " or raise data.held_out_percent",
                spec.adapter,
                len(texts),
                spec.evaluation.texts,
            )
        evaluation = evaluate_adapter(
            AdapterUnderTest(model, store.blobs.open_file(adapter, "adapter"), spec.window, spec.sink, spec.language),
            texts,
            spec.evaluation.ratios,
            tokens=text_tokens(model),
            asked=text_tokens(model) // 4,
            needles=NEEDLES if spec.evaluation.needles else None,
            questions=_questions(spec),
            closer_ratios=spec.ratios[:1],
        )
        values = asdict(evaluation)
        facts = _facts(spec, outcome, history)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.html"
            write_report(report, evaluation, [CurvePoint(**point) for point in history["curve"]], facts, spec.adapter)
            blobs = {
                "evaluation": store.blobs.put_json(values),
                "report": store.blobs.put_file(report),
                "card": store.blobs.put_bytes(_model_card(spec, facts, values).encode()),
            }
        seconds = time.perf_counter() - started
        found = store.units.record(Outcome(stage=EVALUATE.outcomes, fingerprint=identity, blobs=blobs, seconds=seconds))
    gap = gap_closed(store.blobs.get_json(found.blobs["evaluation"]), spec.ratios[0])
    evaluated = EvaluatedAdapter(**dict(trained), evaluation=found, gap_closed=gap)
    return {"evaluated": training.write_work(evaluated), "gap_closed": gap}


def gap_closed(evaluation: dict[str, Any], ratio: int) -> float:
    """What the beacons of an evaluation close at a ratio."""
    return next(
        float(row["gap"]["closed"])
        for row in evaluation["memories"]
        if row["memory"] == "beacon" and row["ratio"] == ratio
    )


def _questions(spec: TrainingSpec) -> list[Any]:
    """Questions with evidence, the first ones of each file."""
    from memorag_pipeline.evaluation.recall_quality import read_questions

    count = spec.evaluation.questions_of_each
    return [question for uri in spec.evaluation.questions for question in read_questions(resolve_file(uri), count)]


def _measured(spec: TrainingSpec) -> dict[str, Any]:
    """What of the spec decides an evaluation, besides the adapter."""
    return {
        "window": spec.window,
        "sink": spec.sink,
        "ratio": spec.ratios[0],
        "data": spec.content()["data"],
        "evaluation": spec.evaluation.model_dump(mode="json", exclude={"gate"}),
        **spec.model_dump(include={"context", "rope_scaling"}),  # which are left out where they are not given
    }


def _facts(spec: TrainingSpec, outcome: Outcome, history: dict[str, Any]) -> dict[str, str]:
    tokens = outcome.counts["tokens"]
    return {
        "adapter": spec.adapter,
        "base model": spec.model,
        "window": f"{spec.window} tokens, sink {spec.sink}",
        "ratios": ", ".join(map(str, spec.ratios)),
        "projections": ", ".join(spec.own_projections) + (f", rank {spec.rank}" if spec.rank else ", full"),
        "placement": spec.placement + (f", start {spec.start}" if spec.placement == "interleave" else ""),
        **({"positions": f"{spec.context:,}, {spec.rope_scaling or 'rotation as it is'}"} if spec.context else {}),
        "loss": f"{spec.distillation:.0%} distillation" if spec.distillation else "next token",
        "tokens": f"{tokens:,}",
        "hours": f"{outcome.seconds / 3600:.2f}, {tokens / max(outcome.seconds, 1e-9):,.0f} tokens/s",
        "device": str(history["device"]),
        "data": ", ".join([*spec.data.text, *spec.data.instructions, *filter(None, [spec.data.corpus])]),
        "left out": ", ".join(f"{count:,} {reason}" for reason, count in history["skipped"].items()) or "nothing",
    }


def _model_card(spec: TrainingSpec, facts: dict[str, str], evaluation: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    memories = "\n".join(
        f"| {row['memory']} | {row['ratio']} | {row['gap']['closed']:.1%} | {_share(row['of_other'])} |"
        for row in evaluation["memories"]
    )
    return f"""# {spec.adapter}

{spec.description or "Beacon parameters: a memory model of the base model below."}

| fact | value |
|---|---|
{rows}

Share of the gap between no context and full context that a memory closes, on texts that were not trained on; what a
memory of another text closes is not memory, but a model that fits such texts better:

| memory | ratio | gap closed | by another text's |
|---|---|---|---|
{memories}

```json
{json.dumps(spec.content(), indent=2)}
```
"""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
