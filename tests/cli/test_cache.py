"""The commands `memorag cache ls` and `rm`, on a cache with blobs, models, notes and what is not of the pipeline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.models import model_cache
from memorag_pipeline.storage.cache import LocalCache
from tests.cli.test_app import json_of, memorag
from tests.conftest import REPOSITORY

BLOBS = (b"one" * 100, b"two" * 200)
DAY = 24 * 3600
USE = """
import sys
from pathlib import Path
from memorag_pipeline.models import model_cache
model_cache.use(model_cache.model_folder("small"))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with two blobs, two models and more, of which no process uses anything."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_cache, "_held", {})
    cache = LocalCache()
    for data in BLOBS:
        fetch(cache, data)
    del cache
    for name, of in (("small", "s3://bucket/small"), ("large", "https://key:secret@host/large")):
        model_cache.made_once(model_cache.model_folder(name), make, of)
    release()
    root = tmp_path / "cache"
    for note in ("models/digests/" + "a" * 64, "verified/" + "b" * 32, "transfers/tmpx/blob", "mine/keep", "models/x"):
        (root / note).parent.mkdir(parents=True, exist_ok=True)
        (root / note).write_text("note")
    yield root
    release()


def release() -> None:
    """Let go of the models, as the end of a process does."""
    for handle in model_cache._held.values():
        os.close(handle)
    model_cache._held.clear()


def fetch(cache: LocalCache, data: bytes) -> Path:
    return cache.fetch(bytes_digest(data), len(data), lambda target: (target.write_bytes(data), None)[1])


def make(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"0" * 5000)


def keys(root: Path) -> dict[str, int]:
    """What the command shows, by key, with the number of files."""
    return {item["key"]: item["files"] for item in json_of("cache", "ls")["items"]}


def files(root: Path) -> set[str]:
    """All files in the cache, except locks."""
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".use"))
    return {str(path.relative_to(root)) for path in found}


KEYS = {"blobs": 2, "models/small": 1, "models/large": 1, "models/digests": 1, "verified": 1, "transfers": 1}


def test_the_items_are_shown_with_what_they_are(root: Path) -> None:
    assert keys(root) == KEYS
    shown = memorag("cache", "ls").stdout
    assert f"Cache {root}" in shown and "s3://bucket/small" in shown and "900 B" in shown
    assert "secret" not in shown and "mine" not in shown
    used = {item["key"]: item["used_at"] for item in json_of("cache", "ls")["items"]}
    assert all(used.values())


def test_every_folder_that_is_made_in_the_cache_is_shown(root: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "memorag_pipeline").rglob("*.py"))
    folders = set(re.findall(r'own_folder\("(\w+)"', code)) | set(re.findall(r'cache_folder\(\) / "(\w+)"', code))
    assert {"reports", "evaluation", "matplotlib", "models", "blobs"} <= folders
    for name in folders:
        (root / name).mkdir(exist_ok=True)
        (root / name / "page.html").write_text("page")
    assert folders == {key.partition("/")[0] for key in keys(root)}


def test_an_empty_cache_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "none"))
    assert json_of("cache", "ls") == {"folder": str(tmp_path / "none"), "items": []}
    assert json_of("cache", "rm", "--all") == {"removed": [], "kept": []}
    assert json_of("cache", "rm", "blobs", "reports") == {"removed": [], "kept": []}
    assert not (tmp_path / "none").exists()


def test_all_goes_but_what_is_not_of_the_pipeline_and_what_may_be_in_use(root: Path) -> None:
    result = memorag("cache", "rm", "--all")
    assert result.exit_code == 0
    assert "transfers stays: 1 files (4 B) may be in use" in result.stdout
    assert files(root) == {"mine/keep", "models/x", "transfers/tmpx/blob"}
    long_ago = time.time() - 2 * DAY
    for path in (root / "transfers/tmpx/blob", root / "transfers/tmpx"):
        os.utime(path, (long_ago, long_ago))
    assert json_of("cache", "rm", "--all")["kept"] == []
    assert files(root) == {"mine/keep", "models/x"}


def test_one_key_at_a_time(root: Path) -> None:
    digest = bytes_digest(BLOBS[0])
    removed = json_of("cache", "rm", "models/small", f"blobs/{digest}")["removed"]
    assert {item["key"]: item["bytes"] for item in removed} == {"blobs": 300, "models/small": 5000}
    assert keys(root) == {**{key: count for key, count in KEYS.items() if key != "models/small"}, "blobs": 1}
    assert "models/large/model.safetensors" in files(root)


def test_what_was_not_used_for_days_goes(root: Path) -> None:
    long_ago = time.time() - 10 * DAY
    os.utime(root / "models" / "large.use", (long_ago, long_ago))
    blob = root / "blobs" / bytes_digest(BLOBS[1])[:2] / bytes_digest(BLOBS[1])
    os.utime(blob, (long_ago, blob.stat().st_mtime))
    assert json_of("cache", "rm", "--older-than", "11")["removed"] == []
    removed = json_of("cache", "rm", "--older-than", "9")["removed"]
    assert {item["key"]: item["files"] for item in removed} == {"blobs": 1, "models/large": 1}
    assert keys(root) == {**{key: count for key, count in KEYS.items() if key != "models/large"}, "blobs": 1}


def test_what_a_process_uses_stays_until_it_ends(root: Path) -> None:
    cache = LocalCache()
    leased = fetch(cache, BLOBS[0])
    process = subprocess.Popen(
        [sys.executable, "-c", USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        used = {item["key"]: item["used_bytes"] for item in json_of("cache", "ls")["items"]}
        assert (used["models/small"], used["models/large"], used["blobs"]) == (5000, 0, 300)
        result = memorag("cache", "rm", "models/small", "models/large", "blobs")
        assert result.exit_code == 5
        assert "in use, and not removed: blobs, models/small; end the processes" in " ".join(result.stderr.split())
        assert leased.read_bytes() == BLOBS[0]
        assert keys(root) == {**{key: count for key, count in KEYS.items() if key != "models/large"}, "blobs": 1}
        process.kill()
    del cache
    assert json_of("cache", "rm", "models/small", "blobs")["kept"] == []
    assert not (root / "models" / "small").exists()


def test_a_removed_model_is_made_again(root: Path) -> None:
    folder = model_cache.model_folder("small")
    assert memorag("cache", "rm", "models/small").exit_code == 0
    assert not folder.exists()
    assert model_cache.made_once(folder, make) == folder
    assert (folder / "model.safetensors").stat().st_size == 5000


def test_wrong_arguments_remove_nothing(root: Path) -> None:
    before = files(root)
    result = memorag("cache", "rm", "models/small", "models/other")
    assert result.exit_code == 4
    assert f"models/other is not in the cache {root}; it holds blobs, models/digests" in " ".join(result.stderr.split())
    for wrong in ([], ["--all", "blobs"], ["../mine"], ["mine"], ["--older-than", "-1"]):
        assert memorag("cache", "rm", *wrong).exit_code in (2, 4)
    assert files(root) == before


def test_links_out_of_the_cache_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (root / "models" / "linked").symlink_to(outside)
    (root / "models" / "small" / "linked").symlink_to(outside)
    (root / "transfers" / "linked").symlink_to(outside)
    memorag("cache", "rm", "--all")
    assert (outside / "file").read_text() == "mine"
    assert not (root / "models" / "small").exists()
