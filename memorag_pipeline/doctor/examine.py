"""All checks of a spec, in the order in which a refresh and then its jobs need what they look at.

In:  a parsed spec; the seconds that all of it may take.
Out: the findings, without secrets.
Wrong: nothing is raised; see `findings`.
"""

from __future__ import annotations

from collections.abc import Iterator

from memorag_pipeline.doctor.airflow import airflow_checks
from memorag_pipeline.doctor.findings import SECONDS, Check, Finding, findings_of
from memorag_pipeline.doctor.models import model_checks
from memorag_pipeline.doctor.places import place_checks
from memorag_pipeline.doctor.questions import question_checks
from memorag_pipeline.doctor.servers import server_checks
from memorag_pipeline.redaction import secrets_in_options
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.named import locations_of

_SHORTEST = 6  # characters; a shorter one, such as the key `any` of a test server, is a part of other words


def examine(spec: CorpusSpec, seconds: float = SECONDS) -> list[Finding]:
    """Look at everything that `spec` names."""
    secrets = [secret for location in locations_of(spec) for secret in secrets_in_options(location.storage_options)]
    return findings_of(list(_checks(spec)), seconds, [secret for secret in secrets if len(secret) >= _SHORTEST])


def _checks(spec: CorpusSpec) -> Iterator[Check]:
    yield from airflow_checks(spec)
    yield from place_checks(spec)
    yield from model_checks(spec)
    yield from question_checks(spec)
    yield from server_checks(spec)
