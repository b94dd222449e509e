"""The bucket policy against what the code asks of a real S3 server: every call is allowed, and deletions are few."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient

from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.verify import verify
from tests.infra.files import INFRA
from tests.storage.conftest import manifest_of

Call = tuple[str, dict[str, Any]]
# The rights that S3 asks for, by operation; a copy reads its source, too.
ACTIONS = {
    "AbortMultipartUpload": ["s3:AbortMultipartUpload"],
    "CompleteMultipartUpload": ["s3:PutObject"],
    "CopyObject": ["s3:GetObject", "s3:PutObject"],
    "CreateMultipartUpload": ["s3:PutObject"],
    "DeleteObject": ["s3:DeleteObject"],
    "GetObject": ["s3:GetObject"],
    "HeadObject": ["s3:GetObject"],
    "ListMultipartUploads": ["s3:ListBucketMultipartUploads"],
    "ListObjectsV2": ["s3:ListBucket"],
    "ListParts": ["s3:ListMultipartUploadParts"],
    "PutObject": ["s3:PutObject"],
    "UploadPart": ["s3:PutObject"],
}
RECORDS = ("versions", "channels", "retired", "condemned")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """All calls of the S3 client, recorded."""
    made: list[Call] = []
    real = AioBaseClient._make_api_call

    async def recorded(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        made.append((operation, parameters))
        return await real(self, operation, parameters)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", recorded)
    yield made


def statements(role: str) -> list[dict[str, Any]]:
    policy = json.loads((INFRA / "s3" / "store-policy.json").read_text(encoding="utf-8"))
    found = []
    for statement in policy["Statement"]:
        principal = statement["Principal"]
        names = ["*"] if principal == "*" else _list(principal["AWS"])
        if any(name == "*" or name.endswith(f"/memorag-{role}") for name in names):
            found.append(statement)
    return found


def is_allowed(role: str, call: Call) -> bool:
    """Whether the policy allows a call over TLS; what no statement allows is denied."""
    return all(_decide(statements(role), action, call[1]) for action in ACTIONS[call[0]])


def _decide(found: list[dict[str, Any]], action: str, parameters: dict[str, Any]) -> bool:
    key = parameters.get("Key")
    resource = "arn:aws:s3:::knowledge" + (f"/{key}" if key else "")
    effects = {
        statement["Effect"]
        for statement in found
        if any(fnmatchcase(action, pattern) for pattern in _list(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
        and _holds(statement.get("Condition", {}), parameters)
    }
    return effects == {"Allow"}


def _holds(condition: dict[str, dict[str, Any]], parameters: dict[str, Any]) -> bool:
    values = {"s3:prefix": parameters.get("Prefix", ""), "aws:SecureTransport": "true"}
    if "IfNoneMatch" in parameters:
        values["s3:if-none-match"] = parameters["IfNoneMatch"]
    for operator, keys in condition.items():
        for name, wanted in keys.items():
            if operator == "Null":
                holds = (name not in values) == (wanted == "true")
            elif operator == "StringLike":
                holds = any(fnmatchcase(values[name], pattern) for pattern in _list(wanted))
            else:
                assert operator == "Bool"
                holds = values[name] == wanted
            if not holds:
                return False
    return True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_each_role_may_do_its_work_and_no_other(
    s3_store: tuple[str, dict[str, Any]], calls: list[Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    uri, options = s3_store
    store = CorpusStore(f"{uri}/kb/topics", options)
    large = tmp_path / "large"
    large.write_bytes(bytes(40 << 20))
    made: dict[str, list[Call]] = {}

    store.blobs.put_file(large)
    for text in (b"one", b"two"):
        store.versions.publish(manifest_of(store, documents=text), f"run-{text!r}")
    store.channels.promote("production", 2, "tests", "to see what is called")
    store.intents.rehearse()  # as memorag doctor does
    made["pipeline"], calls[:] = calls[:], []

    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "another"))
    assert verify(CorpusStore(f"{uri}/kb/topics", options), 2) == []
    made["reader"], calls[:] = calls[:], []

    store.versions.retire(1, "tests", "to see what is called")
    assert sweep(store, grace=timedelta(0)).condemned
    assert sweep(store, grace=timedelta(0)).deleted
    made["sweeper"], calls[:] = calls[:], []

    for role, asked in made.items():
        assert asked, role
        assert [call for call in asked if not is_allowed(role, call)] == []
    assert {call[0] for call in made["pipeline"]} >= {
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "DeleteObject",
    }
    assert any(not is_allowed("reader", call) for call in made["pipeline"])
    deletions = [call for call in made["sweeper"] if call[0] == "DeleteObject"]
    assert deletions and not any(is_allowed("reader", call) for call in deletions)
    assert [call for call in deletions if "/blobs/" in call[1]["Key"] and is_allowed("pipeline", call)] == []
    for role in made:
        for folder in RECORDS:
            record = {"Key": f"kb/topics/{folder}/0.json"}
            assert not is_allowed(role, ("PutObject", record)), "a record is never replaced"
            assert folder == "condemned" or not is_allowed(role, ("DeleteObject", record))
        assert not is_allowed(role, ("GetObject", {"Key": "another/file"}))
