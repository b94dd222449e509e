"""Stage study: a generator asks itself about passages of a corpus, as instructions to train on.

In:  the plan of a training.
Out: the plan with the instructions, whose digest becomes part of its fingerprint.
Wrong: what opening the corpus and the generator raises.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from typing import Any

from memorag_pipeline.models.references import resolve
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.storage import Outcome, fingerprint
from memorag_pipeline.training.plans import TrainingPlan
from memorag_pipeline.training.prepare import TRAIN_VERSION, newest_version
from memorag_pipeline.training.stages import STUDY, TRAIN
from memorag_pipeline.training.training import Training

STUDY_VERSION = 2  # to be raised when the same passages would give other instructions
_CHARACTERS = 4  # of a token


def study(training: Training, plan_uri: str) -> dict[str, Any]:
    """Let the generator ask itself about the corpus, if the spec says so; the returned plan has the instructions."""
    spec, plan, store = training.spec, training.read_work(plan_uri, TrainingPlan), training.store
    if not spec.data.self_study:
        return {"plan": plan_uri, "counts": {}}
    model = spec.generation.model or spec.model
    asked: dict[str, Any] = {
        "count": spec.data.self_study,
        "least_characters": _least_characters(spec),
        "held_out": spec.data.held_out_percent,
        "seed": spec.schedule.seed,
        "language": spec.language,
    }
    decoding = {name: value for name, value in spec.generation.content().items() if name != "batch_size"}
    generator = resolve(model, spec.generation.revision if spec.generation.model else spec.revision).digest
    identity = fingerprint(
        STUDY.outcomes, STUDY_VERSION, corpus=plan.corpus, generator=generator, decoding=decoding, **asked
    )
    found = store.units.find(STUDY.outcomes, identity) or _studied(training, identity, model)
    if found.counts["instructions"]:
        studied = found.blobs["instructions"]
        identity = fingerprint(TRAIN.outcomes, TRAIN_VERSION, plan=plan.fingerprint, studied=studied.digest)
        plan = plan.model_copy(update={"studied": studied, "fingerprint": identity})
    return {"plan": training.write_work(plan), "counts": dict(found.counts)}


def _least_characters(spec: TrainingSpec) -> int:
    """The characters of an English sequence, so that contexts of a self-study fill it; Chinese needs fewer."""
    return _CHARACTERS * spec.schedule.sequence_tokens


def _studied(training: Training, identity: str, model: str) -> Outcome:
    from memorag_pipeline.generators.open import open_generator
    from memorag_pipeline.opened_version import OpenedVersion
    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.specs.corpus import read_spec
    from memorag_pipeline.training import self_study
    from memorag_pipeline.training.readers import is_held_out

    spec, started, skipped = training.spec, time.perf_counter(), Counter[str]()
    assert spec.data.corpus is not None
    store = Pipeline(read_spec(spec.data.corpus)).store
    version = OpenedVersion(store, newest_version(spec.data.corpus, store))
    documents = {
        row["document_id"]: row["text"]
        for row in version.documents()
        if not is_held_out(row["text"], spec.data.held_out_percent)
    }
    chunks = [row for row in version.chunks() if row["document_id"] in documents]
    passages = self_study.choose_passages(chunks, spec.data.self_study, spec.schedule.seed)
    with closing(open_generator(spec.generation.model_copy(update={"model": model}))) as generator:
        records = self_study.study(passages, documents, generator, spec.language, skipped, _least_characters(spec))
        data = self_study.lines(records)
    counts = {"passages": len(passages), "instructions": data.count(b"\n"), "skipped": sum(skipped.values())}
    blobs = {"instructions": training.store.blobs.put_bytes(data)}
    seconds = time.perf_counter() - started
    return training.store.units.record(
        Outcome(stage=STUDY.outcomes, fingerprint=identity, blobs=blobs, counts=counts, seconds=seconds)
    )
