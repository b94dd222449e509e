"""The maintenance of a store, run to its end by `dag.test()`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import Manifest, ManifestBlob
from tests.fixtures.airflow import WriteSpec, states
from tests.fixtures.statsd import StatsD, listed_metrics

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")


def test_versions_are_retired_the_store_is_swept_and_damage_is_found(
    source: Path,
    make_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    run_dag: Callable[..., DagRun],
    metrics: StatsD,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store = {"uri": str(source.parent / "store"), "retention": {"last": 1}}
    write_spec(spec := make_spec(source, store=store, maintenance={"verify_share": 1}))
    corpus = Pipeline(spec).store
    for text in ("first", "second"):
        ref = corpus.blobs.put_bytes(text.encode())
        blob = ManifestBlob(role="documents", path=text, digest=ref.digest, size=ref.size)
        content = {"spec_fingerprint": text, "spec": spec.content(), "models": (), "counts": {}}
        corpus.versions.publish(
            Manifest(corpus="topics", language="en", parent=None, blobs=(blob,), **content), f"run {text}"
        )
    run = run_dag("topics_maintenance")
    assert set.union(*states(run).values()) == {"success"}
    assert list(corpus.versions.retired()) == [1]
    verified = run.get_task_instance("verify").xcom_pull(task_ids="verify", key="verified")
    assert verified == 1
    assert run.get_task_instance("sweep").xcom_pull(task_ids="sweep", key="condemned") == 0  # all of it is young
    sent = metrics.ours()
    stages = {stage for _, stage, _ in sent}
    assert stages >= {"sweep", "verify"} and sent.keys() == set(listed_metrics(stages))
    assert sent["memorag.bytes_verified", "verify", "c"] == len("second")

    corpus.objects.put(ref.key, b"SECOND")
    run = run_dag("topics_maintenance")
    assert states(run)["verify"] == {"failed"}
    assert f"second of version 2 (sha256:{ref.digest})" in capfd.readouterr().out
