"""Stages register and promote: an adapter becomes a version, and the channel follows it if it is better.

In:  the outcome of evaluate; the number of a version.
Out: the version; whether the channel points to it, and why (not).
Wrong: what the store raises.
"""

from __future__ import annotations

from typing import Any

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage import Manifest, ManifestBlob, ModelRecord
from memorag_pipeline.training.evaluate import gap_closed
from memorag_pipeline.training.plans import EvaluatedAdapter
from memorag_pipeline.training.training import ADAPTER_FILE, Training

CHANNEL = "production"


def register(training: Training, evaluated_uri: str, run_id: str) -> dict[str, Any]:
    """Publish the adapter with its evaluation, report and model card as a version."""
    spec, evaluated = training.spec, training.read_work(evaluated_uri, EvaluatedAdapter)
    trained, measured = evaluated.outcome, evaluated.evaluation
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
        models=(ModelRecord(role="base", name=spec.model, revision=spec.revision, digest=evaluated.model),),
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


def _gap_of(training: Training, version: int) -> float:
    (blob,) = training.store.versions.manifest(version).of_role("evaluation")
    return gap_closed(training.store.blobs.get_json(blob.ref, "evaluation"), training.spec.ratios[0])
