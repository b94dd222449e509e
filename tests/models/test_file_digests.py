"""Digests of models: equal wherever the model is the same, and no note on disk is believed that may be wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from memorag_pipeline.models import file_digests
from memorag_pipeline.models.file_digests import (
    earlier_tokenizer_digests,
    remembered_digest,
    tokenizer_digest,
    weights_digest,
)

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of notes, in a separate cache; a file counts as settled as soon as it is written."""
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", 0)
    return tmp_path / "cache" / "models" / "digests"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be digested."""
    read: list[str] = []
    digest = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda path: (read.append(path.name), digest(path))[1])
    return read


def note_of(notes: Path) -> Path:
    (note,) = notes.iterdir()
    return note


def test_a_note_saves_reading_the_file_again(weights: Path, notes: Path, reads: list[str]) -> None:
    assert remembered_digest(weights) == remembered_digest(weights)
    assert len(reads) == 1
    assert note_of(notes).stat().st_mode & 0o077 == 0
    assert notes.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n", "0" * 64, "0" * 64 + "\n", "{name}", "{name} {digest}\n", "{digest} {other}\n", "{upper} {name}\n"),
        *("{digest} {name}", "{digest} {name}\nmore", "{short} {name}\n", "\0" * 130, "é" * 100),
    ],
)
def test_a_note_that_is_not_whole_counts_as_none(weights: Path, notes: Path, reads: list[str], content: str) -> None:
    right = weights_digest(weights.parent)
    note = note_of(notes)
    digest = note.read_text().split()[0]
    text = content.format(name=note.name, digest=digest, upper="A" * 64, short=digest[:-1], other="0" * 64)
    note.write_text(text, encoding="utf-8")
    assert weights_digest(weights.parent) == right
    assert len(reads) == 2
    assert note.read_text() == f"{digest} {note.name}\n"


def test_weights_replaced_under_their_size_and_time_are_found(weights: Path) -> None:
    before, times = remembered_digest(weights), weights.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    with weights.open("r+b") as file:
        file.write(b"x")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert remembered_digest(weights) != before

    edited = remembered_digest(weights)
    other = weights.with_name("other")
    other.write_bytes(b"y" * SIZE)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(weights)
    assert remembered_digest(weights) not in (before, edited)


def test_a_file_that_was_just_written_is_not_noted(weights: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written once more within the same tick of the clock, and would keep its times."""
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", 3600)
    remembered_digest(weights)
    assert list(notes.iterdir()) == []


def test_a_note_expires(weights: Path, notes: Path, reads: list[str]) -> None:
    """A disk that alters bytes by itself changes no time."""
    remembered_digest(weights)
    for age in (25 * 3600, -3600):
        os.utime(note_of(notes), (time.time() - age,) * 2)
        remembered_digest(weights)
    assert len(reads) == 3


def test_the_note_of_another_user_is_not_believed(weights: Path, notes: Path, reads: list[str]) -> None:
    right = remembered_digest(weights)
    note = note_of(notes)
    note.write_text(f"{'0' * 64} {note.name}\n")
    assert remembered_digest(weights) == "0" * 64  # it is this user's
    os.chown(note, 65534, 65534) if os.geteuid() == 0 else note.chmod(0o666)
    assert remembered_digest(weights) == right
    assert len(reads) == 2
    note.chmod(0o666)
    assert remembered_digest(weights) == right
    assert len(reads) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_notes_are_kept_apart_from_another_users(weights: Path, notes: Path, tmp_path: Path) -> None:
    notes.parent.mkdir(parents=True)
    os.chown(notes.parent, 65534, 65534)
    remembered_digest(weights)
    assert list(notes.parent.iterdir()) == []
    assert len(list((tmp_path / "cache" / f"models-{os.geteuid()}" / "digests").iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "file"))
    assert remembered_digest(weights) == remembered_digest(weights)
    assert len(reads) == 2


def tokenizer(folder: Path, **values: object) -> Path:
    """A folder with a tokenizer as transformers saves it."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    config = json.dumps({"pad_token": "<|é|>", **values}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(f"{config}\n", encoding="utf-8")
    return folder


def test_how_a_tokenizer_was_loaded_before_it_was_saved_changes_no_digest(tmp_path: Path) -> None:
    found = {
        tokenizer_digest(tokenizer(tmp_path / f"{local}-{offline}", is_local=local, local_files_only=offline))
        for local in (True, False)
        for offline in (True, False)
    }
    assert len(found) == 1
    plain = tokenizer_digest(tokenizer(tmp_path / "plain"))
    other = tokenizer_digest(tokenizer(tmp_path / "other", is_local=True, local_files_only=True, unk_token="?"))
    assert len({*found, plain, other}) == 3


def test_digests_of_earlier_releases_are_known(tmp_path: Path) -> None:
    """They were over the bytes of the files."""

    def of_bytes(folder: Path) -> str:
        return file_digests._digest(folder, lambda name: name.startswith("tokenizer"), file_digests.file_digest)

    online = tokenizer(tmp_path / "online", is_local=True, local_files_only=False)
    offline = tokenizer(tmp_path / "offline", is_local=True, local_files_only=True)
    plain = tokenizer(tmp_path / "plain")
    assert tokenizer_digest(offline) == of_bytes(offline)
    assert tokenizer_digest(plain) == of_bytes(plain)
    for folder in (online, offline):
        assert {tokenizer_digest(folder), *earlier_tokenizer_digests(folder)} >= {of_bytes(online), of_bytes(offline)}
    assert earlier_tokenizer_digests(plain) == ()


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 5000, '"text"'])
def test_a_configuration_that_is_no_object_is_digested_as_it_is(tmp_path: Path, content: str) -> None:
    folder = tokenizer(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(content)
    assert len(tokenizer_digest(folder)) == 64
