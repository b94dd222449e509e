"""Links from a task in Airflow's UI: to the page of the corpus, to the report of the run, to the blobs.

In:  the spec, the store's URI, the run; Airflow's setting `[api] base_url`.
Out: URLs, which Airflow keeps as XComs when the task has ended.
Wrong: what has no page, such as a store that is a folder, has no link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink, conf

from memorag_operators.ui_plugin import PREFIX

if TYPE_CHECKING:
    from memorag_pipeline.runs.tasks import Run
    from memorag_pipeline.specs.corpus import CorpusSpec


class CorpusLink(BaseOperatorLink):
    """The page of the corpus, with its versions and channels."""

    name = "Corpus"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL."""
        return operator.links.get("corpus", "")


class ReportLink(BaseOperatorLink):
    """The report of the run; it exists once the run has published, or one of its tasks has failed."""

    name = "Report of the run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL."""
        return operator.links.get("report", "")


class StoreLink(BaseOperatorLink):
    """The corpus's blobs in the console of AWS, for a store there."""

    name = "Blobs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL."""
        return operator.links.get("blobs", "")


def links_of(spec: CorpusSpec, store_uri: str, run: Run) -> dict[str, str]:
    """URLs by target."""
    base = conf.get("api", "base_url", fallback="").rstrip("/") or "http://localhost:8080"
    page = f"{base}/{PREFIX}/{spec.corpus}/"
    found = {"corpus": page, "report": f"{page}runs/{run.job or 'refresh'}/{run.name}"}
    if store_uri.startswith("s3://") and "endpoint_url" not in spec.store.storage_options:
        bucket, _, prefix = store_uri.removeprefix("s3://").partition("/")
        found["blobs"] = f"https://console.aws.amazon.com/s3/buckets/{bucket}?prefix={quote(prefix)}/blobs/"
    return found
