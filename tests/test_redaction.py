"""Secrets in a URI, and texts without them."""

from __future__ import annotations

import traceback

import pytest

from memorag_pipeline.errors import MemoragError, SpecProblem, StorageError
from memorag_pipeline.redaction import redacted, secret_in, secret_in_options
from memorag_pipeline.storage.objects import ObjectStore

SECRET = "hunter2"

WITH_SECRETS = [
    f"https://{SECRET}@host/x",
    f"https://me:{SECRET}@host/x",
    f"s3://key:{SECRET}@bucket/x",
    f"s3://key:a/{SECRET}+b@bucket/x",
    f"s3://key:p@ss{SECRET}@bucket/x",
    f"postgresql://me:{SECRET}@host:5432/db",
    f"simplecache::https://{SECRET}@host/x",
    f"https://host/x?sig={SECRET}",
    f"https://host/x?sv=2024&sig={SECRET}&se=2025",
    f"https://host/x?X-Amz-Algorithm=AWS4&X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    f"https://host/x?x-goog-signature={SECRET}",
    f"https://host/x?AWSAccessKeyId=a&Signature={SECRET}&Expires=1",
    f"https://host/x?%73ig={SECRET}",
    f"https://host/x#access_token={SECRET}",
    f"s3://bucket/x?token={SECRET}",
    f"abfs://container@account/x?api_key={SECRET}",
]
WITHOUT = [
    "https://host:8080/a@b",
    "http://[::1]:80/x@y",
    "s3://bucket/x?versionId=3",
    "https://host/export?format=csv",
    "abfs://container@account/x",
    "sftp://me@host/x",
    "s3://bucket/adapters/one@production",
    "memory://a/b#record-7",
    "/a/b?c=d@e",
    "package:all-minilm-l6-v2",
    "org/name",
]


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_a_secret_is_found_and_struck_out(uri: str) -> None:
    found = secret_in(uri)
    assert found is not None and SECRET not in found
    for text in (uri, f"cannot read '{uri}'; check it", f'{{"uri": "{uri}"}}', f"a://b {uri}, {uri}"):
        told = redacted(text)
        assert SECRET not in told and "://" in told and "…" in told
        assert redacted(told) == told
    assert SECRET not in str(MemoragError(f"{uri}: no such object"))
    assert SECRET not in repr(StorageError(f"{uri}: no such object"))
    assert SECRET not in str(SpecProblem("a.yaml", "a", uri, uri, uri))


@pytest.mark.parametrize("uri", WITHOUT)
def test_what_is_no_secret_is_left(uri: str) -> None:
    assert secret_in(uri) is None
    if not uri.startswith("https://host/export"):  # of HTTP no query is shown
        assert redacted(f"cannot read '{uri}'; check it") == f"cannot read '{uri}'; check it"


def test_known_secrets_are_struck_out_in_every_quoting() -> None:
    told = redacted("p@ss/\\ p%40ss/%5C p%40ss%2F%5C 'p@ss/\\\\'", "p@ss/\\", "")
    assert "ss" not in told


@pytest.mark.parametrize("part", ["a", "://a:", "a://b:", "a://", "?a=&", "@", "https://x?"])
def test_no_text_takes_long(part: str) -> None:
    text = "s3://x/?" + part * (200_000 // len(part))
    redacted(text), secret_in(text)


def test_addresses_in_options_are_looked_at() -> None:
    assert secret_in_options({"key": "a", "endpoint_url": "http://127.0.0.1:8333"}) is None
    assert secret_in_options({"client_kwargs": "odd", "endpoint_url": 5}) is None
    found = secret_in_options({"client_kwargs": {"endpoint_url": f"http://me:{SECRET}@host"}})
    assert found == ("client_kwargs.endpoint_url", "a password before its host")


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        (f"s3://key:{SECRET}@bucket/kb", {}),
        ("s3://bucket/kb", {"endpoint_url": f"http://me:{SECRET}@127.0.0.1:9"}),
        ("s3://bucket/kb", {"endpoint_url": f"http://127.0.0.1:9?sig={SECRET}"}),
    ],
)
def test_a_store_is_not_opened_by_an_address_with_a_secret(uri: str, options: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="give it in") as caught:
        ObjectStore(uri, options)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
