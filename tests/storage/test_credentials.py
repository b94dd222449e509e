"""Credentials of a location: from the spec, or from an Airflow connection."""

from __future__ import annotations

import json

import pytest

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.specs.store import StoreSpec
from memorag_pipeline.storage import ObjectStore
from memorag_pipeline.storage.credentials import options_for
from tests.fixtures.s3 import ADMIN, S3Server


def test_options_of_the_spec_are_used_as_they_are() -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "key": "a", "secret": "b"}
    assert options_for(StoreSpec(uri="s3://bucket/kb", storage_options=options)) == options
    assert options_for(StoreSpec(uri="/srv/kb")) == {}


def test_an_airflow_connection_opens_a_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {
        "conn_type": "aws",
        "login": ADMIN["key"],
        "password": ADMIN["secret"],
        "extra": {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    options = options_for(StoreSpec(uri="s3://x/kb", connection_id="lake"))
    assert ObjectStore(f"s3://{s3_server.new_bucket()}/kb", options).create("a/b", b"x")


@pytest.mark.airflow
def test_a_connection_that_uses_the_role_of_the_machine_gives_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws"}))
    assert options_for(StoreSpec(uri="s3://x/kb", connection_id="lake")) == {}


@pytest.mark.airflow
def test_an_unknown_connection_is_named() -> None:
    with pytest.raises(NotFoundError, match="no connection 'nowhere'; add it"):
        options_for(StoreSpec(uri="s3://x/kb", connection_id="nowhere"))
