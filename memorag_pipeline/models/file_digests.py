"""Digests of a model's files, the same on every machine that has the same model.

In:  a folder with a model, or one large file.
Out: the digest of its weights and configuration, that of its tokenizer, the SHA-256 of a file.
Wrong: what reading a file raises. A note on disk in another form than this module's is ignored.

A large file is read once a day: a note keeps its SHA-256 by path, inode, size and times. No program can set the change
time, so weights that were replaced under their old size and modification time are found. Notes belong to this user, and
expire, because a disk that corrupts bytes by itself changes no time.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memorag_pipeline.digests import bytes_digest, file_digest, value_digest
from memorag_pipeline.errors import StorageError
from memorag_pipeline.machine.cache_folder import own_folder
from memorag_pipeline.machine.files import write_whole

logger = logging.getLogger(__name__)

_CONFIGURATION = {"config.json", "generation_config.json", "modules.json", "sentence_bert_config.json"}
TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER = {"tokenizer.json", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
# How transformers was asked to load a tokenizer, which it saves in the configuration. It does not affect tokens. The
# values are those of most saved tokenizers, loaded from a folder and offline, so these keep their digests.
_LOADING = {"is_local": True, "local_files_only": True}
_SMALL = 1 << 20
_NOTE_SECONDS = 24 * 3600
_SETTLED_SECONDS = 2.0  # a file changed less than this before it was read may change again within the clock's tick


def weights_digest(folder: Path) -> str:
    """Digest of a model's weights and configuration."""
    return _digest(folder, lambda name: name.endswith(".safetensors") or name in _CONFIGURATION, remembered_digest)


def tokenizer_digest(folder: Path) -> str:
    """Digest of everything that decides a model's tokens, independent of how it was loaded before it was saved."""
    return _tokenizer_digest(folder, _LOADING)


def earlier_tokenizer_digests(folder: Path) -> tuple[str, ...]:
    """Digests that earlier releases gave to the same tokenizer, by how it was loaded before it was saved."""
    values = (dict(zip(_LOADING, chosen, strict=True)) for chosen in itertools.product((True, False), repeat=2))
    found = dict.fromkeys([tokenizer_digest(folder), *(_tokenizer_digest(folder, loading) for loading in values)])
    return tuple(found)[1:]


def forget_loading(path: Path) -> None:
    """Write a saved tokenizer's configuration as if it had been loaded from a folder and offline."""
    path.write_bytes(_loaded(path.read_bytes(), _LOADING))


def remembered_digest(path: Path) -> str:
    """SHA-256 of a file; a large unchanged file is read once a day."""
    real = path.resolve()
    state = _state(real)
    if real.stat().st_size < _SMALL:
        return file_digest(real)
    try:
        notes = own_folder("models") / "digests"
        notes.mkdir(mode=0o700, exist_ok=True)
    except (StorageError, OSError) as error:  # read-only models are fine
        logger.debug("the digest of %s is not remembered: %s", real, error)
        return file_digest(real)
    note = notes / state
    if noted := _noted(note):
        return noted
    digest = file_digest(real)
    if _state(real) == state and time.time() - real.stat().st_ctime >= _SETTLED_SECONDS:
        try:
            write_whole(note, f"{digest} {state}\n".encode())
        except OSError as error:
            logger.warning("%s is read again the next time, because its digest could not be noted: %s", real, error)
    return digest


def _state(path: Path) -> str:
    found = path.stat()
    parts = (path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return bytes_digest("\n".join(map(str, parts)).encode("utf-8", "surrogateescape"))


def _noted(note: Path) -> str | None:
    """The digest in an intact note that this user wrote within the last day."""
    try:
        with note.open("rb") as file:
            found, line = os.fstat(file.fileno()), file.read(256)
    except OSError:
        return None
    match = re.fullmatch(rb"([0-9a-f]{64}) %s\n" % note.name.encode(), line)
    ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if match is None or not ours or not 0 <= time.time() - found.st_mtime < _NOTE_SECONDS:
        return None
    return match[1].decode()


def _tokenizer_digest(folder: Path, loading: dict[str, bool]) -> str:
    def digest(path: Path) -> str:
        if path.name == TOKENIZER_CONFIG:
            return bytes_digest(_loaded(path.read_bytes(), loading))
        return remembered_digest(path)

    return _digest(folder, lambda name: name in _TOKENIZER, digest)


def _loaded(data: bytes, loading: dict[str, bool]) -> bytes:
    """A tokenizer's configuration as transformers writes it after loading it in this way."""
    try:
        values: Any = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(values, dict):
        return data
    changed = {key: value for key, value in loading.items() if key in values and values[key] != value}
    if not changed:
        return data
    return f"{json.dumps({**values, **changed}, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def _digest(folder: Path, wanted: Callable[[str], bool], digest: Callable[[Path], str]) -> str:
    """Digest over (relative name, SHA-256) of the files with a wanted base name."""
    files = sorted(path for path in folder.rglob("*") if wanted(path.name) and path.is_file())
    return value_digest([[path.relative_to(folder).as_posix(), digest(path)] for path in files])
