"""What a user sees when a bucket, a credential or the address of an S3 store is wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import ObjectNotFoundError, StorageError
from memorag_pipeline.storage import ObjectStore
from tests.fixtures.s3 import ADMIN, READER, S3Server
from tests.storage.conftest import Root


def operations(objects: ObjectStore, tmp_path: Path) -> dict[str, Callable[[], Any]]:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 34_000_000)
    return {
        "create": lambda: objects.create("a/new", b"x"),
        "create_from_file": lambda: objects.create_from_file("a/new", large),
        "put": lambda: objects.put("a/new", b"x"),
        "delete": lambda: objects.delete("a/there"),
        "read": lambda: objects.read("a/there"),
        "pieces": lambda: list(objects.pieces("a/there", 10)),
        "download": lambda: objects.download("a/there", tmp_path / "target", 10),
        "list": lambda: objects.list("a"),
    }


WRITES = ["create", "create_from_file", "put", "delete"]
ALL = [*WRITES, "read", "pieces", "download", "list"]


@pytest.mark.parametrize("operation", [name for name in ALL if name != "pieces"])
def test_a_wrong_bucket_is_named(s3_server: S3Server, tmp_path: Path, operation: str) -> None:
    objects = ObjectStore("s3://no-such-bucket/kb", s3_server.options())
    with pytest.raises(StorageError, match=r"there is no bucket 'no-such-bucket'; create it, or correct") as caught:
        operations(objects, tmp_path)[operation]()
    assert not isinstance(caught.value, ObjectNotFoundError)


@pytest.mark.parametrize(
    "identity",
    [{"key": "nobody", "secret": "x"}, {"key": ADMIN["key"], "secret": "not-the-secret"}],
    ids=["wrong key", "wrong secret"],
)
@pytest.mark.parametrize("operation", ALL)
def test_wrong_credentials_are_told(
    s3_server: S3Server, s3_store: Root, tmp_path: Path, operation: str, identity: dict[str, str]
) -> None:
    objects = ObjectStore(s3_store[0], s3_server.options(identity))
    with pytest.raises(StorageError, match=rf"{s3_store[0]}/a.*permission denied .*check the credentials") as caught:
        operations(objects, tmp_path)[operation]()
    assert identity["secret"] not in str(caught.value).split()


def test_a_reader_reads_and_cannot_write(s3_server: S3Server, s3_store: Root, tmp_path: Path) -> None:
    ObjectStore(*s3_store).create("a/there", b"x")
    objects = ObjectStore(s3_store[0], s3_server.options(READER))
    calls = operations(objects, tmp_path)
    for name in WRITES:
        with pytest.raises(StorageError, match="permission denied"):
            calls[name]()
    assert objects.read("a/there") == b"x"
    assert objects.list("a") == ["a/there"]
    assert objects.size("a/there") == 1
    assert objects.size("a/none") is None


def test_no_credentials_at_all_are_told(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    with pytest.raises(StorageError, match="no credentials: give key and secret"):
        ObjectStore("s3://bucket/kb", {"endpoint_url": s3_server.endpoint}).read("a/b")


def test_an_address_where_nothing_listens_is_told_soon() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StorageError, match=f"cannot list s3://bucket/kb/versions: .*{endpoint}"):
            ObjectStore("s3://bucket/kb", {"endpoint_url": endpoint, **ADMIN}).list("versions")
    assert time.monotonic() - started < 30


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = {
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "config_kwargs": {"read_timeout": 0.2, "retries": {"mode": "standard", "total_max_attempts": 1}},
        }
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot read s3://bucket/kb/a: ConnectionError: Read timeout"):
            ObjectStore("s3://bucket/kb", {**options, **ADMIN}).read("a")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("options", [{"endpont_url": "http://127.0.0.1"}, {"endpoint_url": "127.0.0.1"}])
def test_options_that_cannot_be_right_are_told(options: dict[str, str]) -> None:
    with pytest.raises(StorageError, match=r"s3://bucket/kb: the storage options are not accepted: .*127|endpont_url"):
        ObjectStore("s3://bucket/kb", {**options, **ADMIN})


def test_a_uri_without_a_bucket_is_refused() -> None:
    with pytest.raises(StorageError, match="names no bucket"):
        ObjectStore("s3://", dict(ADMIN))
