"""The stages of a training: prepare, study, train, evaluate, register, promote.

In:  a `Training`, and from stage to stage the URI of a work list.
Out: small dicts of URIs, counts and figures; a version of the adapter's own store.
Wrong: data, a model or an adapter that is not there is refused by `prepare`; what was trained is kept as checkpoints.

The adapter is a versioned artifact like a corpus: blobs, manifest, commit record, channels. Its units are `study`,
whose outcome are instructions, `train`, whose outcome is the adapter file, and `evaluate`.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.models.file_digests import remembered_digest
from memorag_pipeline.models.references import resolve, resolve_file
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.manifest import Manifest, ManifestBlob, ModelRecord
from memorag_pipeline.storage.units import Outcome, fingerprint

logger = logging.getLogger(__name__)

# To be raised when the same spec would train another adapter, or be measured in another way.
STUDY_VERSION = 2
TRAIN_VERSION = 1
EVALUATE_VERSION = 2
CHANNEL = "production"
_CHARACTERS = 4  # of a token
ADAPTER_FILE = "adapter.safetensors"
# Held-out texts that tell how a training goes; all of them are read when it is over.
_MEASURED = 8


@dataclass(frozen=True)
class Training:
    """A training spec and the store of its adapter."""

    spec: TrainingSpec

    @cached_property
    def store(self) -> CorpusStore:
        """The artifact store of the adapter."""
        location = self.spec.store
        return CorpusStore(f"{location.uri.rstrip('/')}/{self.spec.adapter}", options_for(location))

    def write_work(self, value: Any) -> str:
        """Store a work list (any JSON value) and return its URI."""
        return self.store.blobs.uri(self.store.blobs.put_json(value))

    def read_work(self, uri: str) -> Any:
        """The work list at `uri`, verified."""
        return self.store.blobs.get_json(self.store.blobs.ref_of(uri), f"work list {uri}")


def prepare(training: Training) -> dict[str, Any]:
    """Find model, data and the adapter to begin with, and what identifies them."""
    spec = training.spec
    model = resolve(spec.model, spec.revision)
    files = [*spec.data.text, *spec.data.instructions, *spec.data.contexts]
    inputs = {
        "model": model.digest,
        "begin": remembered_digest(resolve_file(spec.begin_with)) if spec.begin_with is not None else None,
        "data": {uri: _identity(uri, options_for(spec.data)) for uri in files},
        "corpus": _corpus_identity(spec.data.corpus),
        "spec": spec.content(),
    }
    plan = {"fingerprint": fingerprint("train", TRAIN_VERSION, **inputs), **inputs}
    return {"plan": training.write_work(plan), "counts": {"files": len(files)}}


def study(training: Training, plan_uri: str) -> dict[str, Any]:
    """Let the generator ask itself about the corpus, if the spec says so; the plan goes on with the instructions."""
    spec, plan, store = training.spec, training.read_work(plan_uri), training.store
    if not spec.data.self_study:
        return {"plan": plan_uri, "counts": {}}
    model = spec.generation.model or spec.model
    asked = {
        "count": spec.data.self_study,
        "least_characters": _least_characters(spec),
        "held_out": spec.data.held_out_percent,
        "seed": spec.schedule.seed,
        "language": spec.language,
    }
    decoding = {name: value for name, value in spec.generation.content().items() if name != "batch_size"}
    generator = resolve(model, spec.generation.revision if spec.generation.model else spec.revision).digest
    identity = fingerprint(
        "study", STUDY_VERSION, corpus=plan["corpus"], generator=generator, decoding=decoding, **asked
    )
    found = store.units.find("study", identity) or _studied(training, identity, model)
    if found.counts["instructions"]:
        studied = found.blobs["instructions"]
        identity = fingerprint("train", TRAIN_VERSION, plan=plan["fingerprint"], studied=studied.digest)
        plan |= {"studied": studied.model_dump(), "fingerprint": identity}
    return {"plan": training.write_work(plan), "counts": dict(found.counts)}


def train(training: Training, plan_uri: str) -> dict[str, Any]:
    """Train, from the newest checkpoint of the same run on, unless it was done before."""
    plan, store = training.read_work(plan_uri), training.store
    found = store.units.find("train", plan["fingerprint"])
    if found is None:
        found = _trained(training, plan)
    trained = {"fingerprint": plan["fingerprint"], "model": plan["model"], "outcome": found.model_dump(mode="json")}
    return {"trained": training.write_work(trained), "counts": dict(found.counts)}


def evaluate(training: Training, trained_uri: str) -> dict[str, Any]:
    """Measure the trained adapter beside the selections that need no training, and write the report."""
    from memorag_pipeline.evaluation.adapter import NEEDLES, evaluate_adapter
    from memorag_pipeline.evaluation.report import CurvePoint, write_report
    from memorag_pipeline.memory.engine.language_model import load_language_model

    spec, store = training.spec, training.store
    trained = training.read_work(trained_uri)
    outcome = Outcome.model_validate(trained["outcome"])
    adapter = outcome.blobs["adapter"]
    identity = fingerprint(
        "evaluate", EVALUATE_VERSION, adapter=adapter.digest, model=trained["model"], spec=_measured(spec)
    )
    found = store.units.find("evaluate", identity)
    if found is None:
        started = time.perf_counter()
        history = store.blobs.get_json(outcome.blobs["history"], "history of the training")
        model = load_language_model(spec.model, spec.revision, spec.dtype)
        texts = _held_out(spec, model, spec.evaluation.texts)
        if len(texts) < spec.evaluation.texts:
            logger.warning(
                "%s: measured on %d held-out texts, not on %d as evaluation.texts says: there are no more; add texts,"
                " or raise data.held_out_percent",
                spec.adapter,
                len(texts),
                spec.evaluation.texts,
            )
        evaluation = evaluate_adapter(
            model,
            texts,
            store.blobs.open_file(adapter, "adapter"),
            window=spec.window,
            sink=spec.sink,
            ratios=spec.evaluation.ratios,
            language=spec.language,
            tokens=_tokens(model),
            asked=_tokens(model) // 4,
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
        found = store.units.record(Outcome(stage="evaluate", fingerprint=identity, blobs=blobs, seconds=seconds))
    gap = gap_closed(store.blobs.get_json(found.blobs["evaluation"]), spec.ratios[0])
    evaluated = trained | {"evaluation": found.model_dump(mode="json"), "gap_closed": gap}
    return {"evaluated": training.write_work(evaluated), "gap_closed": gap}


def register(training: Training, evaluated_uri: str, run_id: str) -> dict[str, Any]:
    """Publish the adapter with its evaluation, report and model card as a version."""
    spec, evaluated = training.spec, training.read_work(evaluated_uri)
    trained, measured = (Outcome.model_validate(evaluated[name]) for name in ("outcome", "evaluation"))
    files = {
        "adapter": (ADAPTER_FILE, trained.blobs["adapter"]),
        "history": ("history.json", trained.blobs["history"]),
        "evaluation": ("evaluation.json", measured.blobs["evaluation"]),
        "report": ("report.html", measured.blobs["report"]),
        "card": ("MODEL_CARD.md", measured.blobs["card"]),
    }
    manifest = Manifest(
        corpus=spec.adapter,
        language=spec.language,
        parent=None,
        spec_fingerprint=spec.fingerprint(),
        spec=spec.content(),
        models=(ModelRecord(role="base", name=spec.model, revision=spec.revision, digest=evaluated["model"]),),
        blobs=tuple(
            ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size) for role, (path, ref) in files.items()
        ),
        counts=dict(trained.counts),
    )
    published = training.store.versions.publish(manifest, run_id)
    return {"version": published.version, "created": published.created, "uri": training.store.uri}


def promote(training: Training, version: int, by: str) -> dict[str, Any]:
    """Point the channel to `version` if it closes more of the gap than the version that the channel points to."""
    spec, store = training.spec, training.store
    gap = _gap_of(training, version)
    try:
        current = store.channels.version(CHANNEL)
    except NotFoundError:
        current = None
    if current == version:
        return {"promoted": False, "version": version, "gap_closed": gap, "why": f"{CHANNEL} points to it already"}
    before = None if current is None else _gap_of(training, current)
    if before is not None and gap <= before + spec.evaluation.gate:
        why = f"closes {gap:.1%} of the gap, version {current} closes {before:.1%} (gate {spec.evaluation.gate:.1%})"
        return {"promoted": False, "version": version, "gap_closed": gap, "why": why}
    why = f"closes {gap:.1%} of the gap" + ("" if before is None else f", version {current} {before:.1%}")
    store.channels.promote(CHANNEL, version, by, why)
    return {"promoted": True, "version": version, "gap_closed": gap, "why": why}


def gap_closed(evaluation: dict[str, Any], ratio: int) -> float:
    """What the beacons of an evaluation close at a ratio."""
    return next(
        float(row["gap"]["closed"])
        for row in evaluation["memories"]
        if row["memory"] == "beacon" and row["ratio"] == ratio
    )


def _least_characters(spec: TrainingSpec) -> int:
    """As many as a sequence of English has, so that contexts of a self-study fill it; Chinese needs fewer."""
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
    generator = open_generator(spec.generation.model_copy(update={"model": model}))
    records = self_study.study(passages, documents, generator, spec.language, skipped, _least_characters(spec))
    data = self_study.lines(records)
    counts = {"passages": len(passages), "instructions": data.count(b"\n"), "skipped": sum(skipped.values())}
    blobs = {"instructions": training.store.blobs.put_bytes(data)}
    seconds = time.perf_counter() - started
    return training.store.units.record(
        Outcome(stage="study", fingerprint=identity, blobs=blobs, counts=counts, seconds=seconds)
    )


def _trained(training: Training, plan: dict[str, Any]) -> Outcome:
    """Train; the outcome's history has the curve, what was skipped, and where it was trained."""
    import torch

    from memorag_pipeline.memory.engine.language_model import load_language_model
    from memorag_pipeline.training.adapter import write_adapter
    from memorag_pipeline.training.checkpoints import Checkpoints
    from memorag_pipeline.training.parameters import trainable
    from memorag_pipeline.training.trainer import Stage, Trainer

    spec, store = training.spec, training.store
    if "studied" in plan:
        studied = store.blobs.open_file(BlobRef.model_validate(plan["studied"]), "instructions of the self-study")
        data = spec.data.model_copy(update={"instructions": [*spec.data.instructions, str(studied)]})
        spec = spec.model_copy(update={"data": data})
    model = load_language_model(spec.model, spec.revision, spec.dtype)
    begin = resolve_file(spec.begin_with) if spec.begin_with is not None else None
    parameters = trainable(model, spec, begin)
    skipped: dict[tuple[str, int], Counter[str]] = {}
    stages = [Stage(*stage) for stage in _stages(spec, model, skipped)]
    for stage in stages:
        next(iter(stage.sequences(0)))  # or what has nothing to train on is found out when the others are done
    skipped.clear()
    trainer = Trainer(
        model, parameters, spec, Checkpoints(store, plan["fingerprint"]), _measure(spec, model, parameters)
    )
    position = trainer.train(stages)
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
    left_out = _in_an_epoch(skipped)
    history = {"curve": [asdict(point) for point in position.curve], "skipped": left_out, "device": device}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ADAPTER_FILE
        write_adapter(path, parameters, model.resolved, spec)
        blobs = {"adapter": store.blobs.put_file(path), "history": store.blobs.put_json(history)}
    counts = {"tokens": position.curve[-1].tokens, "skipped": sum(left_out.values())}
    return store.units.record(
        Outcome(stage="train", fingerprint=plan["fingerprint"], blobs=blobs, counts=counts, seconds=position.seconds)
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
    """What was left out of each stage, in the epoch that was read furthest; every epoch reads the same files again."""
    stages = {stage for stage, _ in skipped}
    most = (
        max((found for (name, _), found in skipped.items() if name == stage), key=Counter.total) for stage in stages
    )
    return dict(sum(most, Counter[str]()))


def _measure(spec: TrainingSpec, model: Any, parameters: Any) -> Callable[[], float]:
    """Tells the share of the gap that the parameters close as they are now, on a few held-out texts."""
    from memorag_pipeline.evaluation.gap import gap, losses, with_all, without_context
    from memorag_pipeline.training.parameters import memory_model

    texts = _held_out(spec, model, _MEASURED)
    beacons = memory_model(model, parameters, spec)
    asked = _tokens(model) // 4
    nothing, full = without_context(model, texts, asked), with_all(model, texts, asked)
    return lambda: gap(nothing, losses(beacons, texts, asked), full).closed


def _held_out(spec: TrainingSpec, model: Any, count: int) -> list[list[int]]:
    """The first tokens of texts that are never trained on."""
    from memorag_pipeline.evaluation.gap import first_tokens
    from memorag_pipeline.training.data import held_out_texts

    tokenizer, tokens = model.tokenizer, _tokens(model)
    texts = held_out_texts(spec, tokenizer, count, tokens)
    return first_tokens([tokenizer.plain(text) for text in texts], tokens)


def _questions(spec: TrainingSpec) -> list[Any]:
    """Questions with evidence, of each file the first ones."""
    from memorag_pipeline.evaluation.recall_quality import read_questions

    count = spec.evaluation.questions_of_each
    return [question for uri in spec.evaluation.questions for question in read_questions(resolve_file(uri), count)]


def _tokens(model: Any) -> int:
    """Tokens of the texts to measure by, the last quarter of which is asked; fewer than usual in a short context."""
    from memorag_pipeline.evaluation.gap import TOKENS

    return min(TOKENS, int(model.context))


def _identity(uri: str, options: dict[str, Any]) -> str:
    """What changes when the file at `uri` does, without reading it."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **options)
        return bytes_digest(str(filesystem.ukey(path)).encode())
    except Exception as error:  # every filesystem has its own kinds
        raise NotFoundError(
            f"training data {uri}: cannot be looked up ({type(error).__name__}); check the URI and the credentials"
        ) from error


def _corpus_identity(spec_file: str | None) -> str | None:
    """The content of the newest version of a corpus."""
    if spec_file is None:
        return None
    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.specs.corpus import read_spec

    store = Pipeline(read_spec(spec_file)).store
    return store.versions.manifest(newest_version(spec_file, store)).content_digest()


def newest_version(spec_file: str, store: CorpusStore) -> int:
    """The newest version of the corpus that is trained on."""
    newest = store.versions.newest()
    if newest is None:
        raise NotFoundError(f"training data {spec_file}: its corpus has no version yet; run `memorag refresh` first")
    return newest


def _measured(spec: TrainingSpec) -> dict[str, Any]:
    """What of the spec decides an evaluation, besides the adapter."""
    return {
        "window": spec.window,
        "sink": spec.sink,
        "ratio": spec.ratios[0],
        "data": spec.content()["data"],
        "evaluation": spec.evaluation.model_dump(mode="json", exclude={"gate"}),
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

Share of the gap between no context and full context that a memory closes, on texts that were not trained on;
what a memory of another text closes is no memory, but a model that fits such texts better:

| memory | ratio | gap closed | by another text's |
|---|---|---|---|
{memories}

```json
{json.dumps(spec.content(), indent=2)}
```
"""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _gap_of(training: Training, version: int) -> float:
    (blob,) = training.store.versions.manifest(version).of_role("evaluation")
    return gap_closed(training.store.blobs.get_json(blob.ref, "evaluation"), training.spec.ratios[0])
