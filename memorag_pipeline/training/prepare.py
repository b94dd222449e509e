"""Stage prepare: everything that a training depends on is found before anything is loaded.

In:  a `Training`.
Out: the plan: digests of model, data, corpus and spec.
Wrong: missing data, a missing model or adapter is a `NotFoundError`.
"""

from __future__ import annotations

from typing import Any

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.models.file_digests import remembered_digest
from memorag_pipeline.models.references import resolve, resolve_file
from memorag_pipeline.storage import CorpusStore, fingerprint
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.training.plans import TrainingPlan
from memorag_pipeline.training.stages import TRAIN
from memorag_pipeline.training.training import Training

TRAIN_VERSION = 1  # to be raised when the same spec would train another adapter


def prepare(training: Training) -> dict[str, Any]:
    """Find model, data and the adapter to start from, and their digests."""
    spec = training.spec
    model = resolve(spec.model, spec.revision)
    files = [*spec.data.text, *spec.data.instructions, *spec.data.contexts]
    inputs: dict[str, Any] = {
        "model": model.digest,
        "begin": remembered_digest(resolve_file(spec.begin_with)) if spec.begin_with is not None else None,
        "data": {uri: _identity(uri, options_for(spec.data)) for uri in files},
        "corpus": _corpus_identity(spec.data.corpus),
        "spec": spec.content(),
    }
    plan = TrainingPlan(fingerprint=fingerprint(TRAIN.outcomes, TRAIN_VERSION, **inputs), **inputs)
    return {"plan": training.write_work(plan), "counts": {"files": len(files)}}


def newest_version(spec_file: str, store: CorpusStore) -> int:
    """The newest version of the corpus that is trained on."""
    newest = store.versions.newest()
    if newest is None:
        raise NotFoundError(f"training data {spec_file}: its corpus has no version yet; run `memorag refresh` first")
    return newest


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
