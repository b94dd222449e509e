"""Commands that move channels and end the life of versions, on a store with small versions."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from tests.cli.test_app import json_of, memorag, write_spec
from tests.storage.conftest import manifest_of

COUNTS = dict.fromkeys(("documents", "chunks", "quarantined", "shards", "tokens"), 1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusStore:
    """Versions 1 to 3."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    store = CorpusStore(str(tmp_path / "store" / "topics"))
    for text in (b"one", b"two", b"three"):
        manifest = manifest_of(store, documents=text).model_copy(update={"counts": COUNTS})
        store.versions.publish(manifest, "run")
    return store


def test_a_channel_is_rolled_back_and_tells_its_history(store: CorpusStore) -> None:
    for version in ("1", "2", "3"):
        json_of("promote", store.uri, "production", version, "--why", f"version {version}")
    rolled = json_of("rollback", store.uri, "production", "--why", "3 is bad")
    assert (rolled["version"], rolled["action"], rolled["by"]) == (2, "rollback", getpass.getuser())
    assert "points to version 1" in memorag("rollback", store.uri, "production", "--why", "2 too").stdout
    found = json_of("history", store.uri, "production")
    assert [(item["version"], item["action"], item["why"]) for item in found] == [
        (1, "rollback", "2 too"),
        (2, "rollback", "3 is bad"),
        (3, "promote", "version 3"),
        (2, "promote", "version 2"),
        (1, "promote", "version 1"),
    ]
    assert "3 is bad" in memorag("history", store.uri, "production").stdout
    result = memorag("rollback", store.uri, "production", "--why", "all are bad")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "has pointed to no version before 1" in result.stderr
    for command in (["history", store.uri, "prod"], ["rollback", store.uri, "prod", "--why", "x"]):
        result = memorag(*command)
        assert result.exit_code == 4
        assert "it has: production" in result.stderr


def test_a_version_is_retired_and_says_so(store: CorpusStore) -> None:
    json_of("promote", store.uri, "production", "2", "--why", "good")
    assert json_of("retire", store.uri, "1", "--why", "wrong source")["why"] == "wrong source"
    result = memorag("retire", store.uri, "production", "--why", "old")
    assert result.exit_code == 5
    assert "channel production points to it; promote another version first" in " ".join(result.stderr.split())
    result = memorag("show", store.uri, "1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert f"by {getpass.getuser()}: wrong source; open another: 2, 3" in " ".join(result.stderr.split())
    assert "retired: wrong source" in memorag("versions", store.uri).stdout
    listed = json_of("versions", store.uri)
    assert [(line["version"], line["retired"]) for line in listed] == [(3, None), (2, None), (1, "wrong source")]
    assert memorag("promote", store.uri, "production", "1", "--why", "x").exit_code == 4


def test_gc_applies_the_rules_of_the_spec_and_tells_what_why_and_bytes(
    tmp_path: Path, store: CorpusStore, make_spec: Callable[..., CorpusSpec]
) -> None:
    rules = {"uri": str(tmp_path / "store"), "retention": {"last": 1, "grace_days": 5}}
    spec = write_spec(tmp_path, make_spec(tmp_path / "source", store=rules))
    store.channels.promote("production", 1, "ann", "good")
    for path in (tmp_path / "store").rglob("blobs/**/*"):
        if path.is_file():
            age_by_days(path, 6)

    told = json_of("gc", spec, "--dry-run")
    assert (told["retired"], told["condemned"], told["dry_run"], told["grace_days"]) == ([2], [], True, 5.0)
    assert store.versions.retained() == [1, 2, 3]

    done = json_of("gc", spec)
    assert (done["retired"], done["deleted"]) == ([2], [])
    assert {item["why"] for item in done["condemned"]} == {"of version 2, which is retired"}
    assert done["condemned_bytes"] == sum(item["size"] for item in done["condemned"]) > 0
    shown = memorag("gc", spec).stdout
    assert "waiting" in shown and "of version 2, which is retired" in shown
    assert "0 B deleted" in shown and "(deleted 5 days after they are first found so)" in shown

    for folder in ("condemned", "retired"):
        for path in (tmp_path / "store" / "topics" / folder).iterdir():
            age_by_days(path, 6)
    told = json_of("gc", spec, "--dry-run")
    done = json_of("gc", spec)
    assert [item["key"] for item in done["deleted"]] == [item["key"] for item in told["deleted"]]
    assert len(done["deleted"]) == 2
    assert done["deleted_bytes"] > 0
    assert memorag("verify", spec, "production").exit_code == 0


def test_gc_of_a_root_retires_nothing_and_waits_seven_days(store: CorpusStore) -> None:
    found = json_of("gc", store.uri)
    assert (found["retired"], found["grace_days"], found["deleted"]) == ([], 7.0, [])
    assert "0 B deleted; 0 B unreferenced (deleted 7 days after" in memorag("gc", store.uri).stdout


def test_gc_tells_from_when_on_what_a_retired_version_holds_may_go(store: CorpusStore) -> None:
    store.versions.retire(1, "ann", "purged")
    day = (datetime.now(UTC) + timedelta(days=14)).date()
    told = json_of("gc", store.uri, "--dry-run")
    assert (told["condemned"], told["condemned_bytes"]) == ([], 0)
    assert {item["why"] for item in told["waiting"]} == {"of version 1, which is retired"}
    assert all(item["since"] is None and item["size"] > 0 for item in told["waiting"])
    # They are condemned when they are a grace period old, and deleted a grace period later.
    assert {datetime.fromisoformat(item["may_go"]).date() for item in told["waiting"]} == {day}
    shown = memorag("gc", store.uri, "--dry-run").stdout
    assert f"{day:%Y-%m-%d}" in shown and "of retired versions are too young to be condemned yet" in shown


def age_by_days(path: Path, days: int) -> None:
    """As if the file had been written so long ago."""
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime - days * 86400))
