"""Reading what is trained on: files of texts and instructions, and the documents of a corpus, one record at a time.

In:  JSONL (plain, gzip or zstd) or Parquet on any fsspec URI; a corpus spec, whose newest version's documents are read.
Out: records and texts in the order of their file, each with its place (`FILE:7`, or the URI of a document).
Wrong: a bad record is left out and counted under its reason; a file that cannot be read is a `TrainingError`.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import NotFoundError, TrainingError
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.specs.training import TrainingDataSpec
from memorag_pipeline.storage.credentials import options_for

HELD_OUT = "held out for the evaluation"
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by the first bytes of a file
_BUFFER = 1 << 20
_ROWS = 64  # rows of a Parquet file in memory at a time; a row may be a whole book

logger = logging.getLogger(__name__)

Skipped = Counter[str]  # how many records were left out, by reason


class UnusableError(Exception):
    """A record cannot be used; the message is the reason that it is counted under."""


@dataclass(frozen=True)
class Record:
    """A record as it was read: `place` is for messages."""

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """A document to train on; `source` says where it is from."""

    source: str
    text: str


TextSource = Callable[[], Iterator[Text]]


def is_held_out(text: str, percent: int) -> bool:
    """Whether a document is kept for the evaluation. Its text alone decides, so that the decision is the same wherever
    it is read."""
    return int(text_digest(text.strip())[:8], 16) % 100 < percent


def text_sources(data: TrainingDataSpec, skipped: Skipped) -> list[TextSource]:
    """One for each file of texts, in the order of the spec, and the last for the corpus. Call one to read it."""
    sources: list[TextSource] = [partial(_texts_of_file, uri, data, skipped) for uri in data.text]
    if data.corpus is not None:
        sources.append(partial(_texts_of_corpus, data.corpus, skipped))
    return sources


def read_contexts(data: TrainingDataSpec, skipped: Skipped) -> dict[str, str]:
    """The texts that instructions name by `context_id`; of several with the same id the first."""
    contexts: dict[str, str] = {}
    columns = ("context_id", "id", "text", "context")
    for uri in data.contexts:
        for record in read_records(uri, data, skipped, columns, ("text", "context")):
            try:
                name = context_id(record.fields)
                if name in contexts:
                    raise UnusableError("context_id of an earlier context")
                contexts[name] = text_of(record.fields, "text", "context")
            except UnusableError as problem:
                skip(skipped, f"contexts: {problem}", record.place)
    return contexts


def read_records(
    uri: str, data: TrainingDataSpec, skipped: Skipped, columns: Sequence[str], needed: Sequence[str]
) -> Iterator[Record]:
    """Records of a file. Of Parquet only `columns` are read, of which at least one of `needed` must exist."""
    try:
        with fsspec.open(uri, "rb", **options_for(data)) as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PAR1":
                yield from _rows(uri, file, columns, needed)
            else:
                yield from _lines(uri, _unpacked(file, start), skipped)
    except FileNotFoundError:
        raise TrainingError(f"{uri}: no such file; correct the section data of the training spec") from None
    except PermissionError:
        raise TrainingError(f"{uri}: the file may not be read; check the credentials and its rights") from None
    except (OSError, ImportError, ValueError, pa.ArrowException) as error:
        raise TrainingError(f"{uri}: the file cannot be read: {type(error).__name__}: {error}") from error


def text_of(fields: Mapping[str, Any], *names: str) -> str:
    """The text under the first of `names` that has a value, without the white space around it."""
    value = next((fields[name] for name in names if fields.get(name) is not None), None)
    if value is None:
        raise UnusableError(f"no {names[0]}")
    if not isinstance(value, str):
        raise UnusableError(f"{names[0]} is not a string")
    text = value.strip()
    if not text:
        raise UnusableError(f"empty {names[0]}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableError(f"{names[0]} is not valid Unicode") from None
    return text


def context_id(fields: Mapping[str, Any]) -> str:
    """The id of a context as text; integers are accepted, too."""
    value = next((fields[name] for name in ("context_id", "id") if fields.get(name) is not None), None)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UnusableError("no context_id")
    return str(value)


def skip(skipped: Skipped, reason: str, place: str) -> None:
    """Count a record that is left out; the first of each reason is logged, only once even if a file is read several
    times."""
    if not skipped[reason]:
        _tell(place, reason)
    skipped[reason] += 1


@lru_cache
def _tell(place: str, reason: str) -> None:
    logger.warning("%s: left out: %s (others like it are only counted)", place, reason)


def _texts_of_file(uri: str, data: TrainingDataSpec, skipped: Skipped) -> Iterator[Text]:
    return _texts(read_records(uri, data, skipped, ("text",), ("text",)), skipped)


def _texts_of_corpus(path: str, skipped: Skipped) -> Iterator[Text]:
    store = Pipeline(read_spec(path)).store
    number = store.versions.newest()
    if number is None:
        raise NotFoundError(f"{path}: {store.uri} holds no version to train on; run `memorag refresh {path}` first")
    documents = OpenedVersion(store, number).documents()
    return _texts((Record(document["uri"], document) for document in documents), skipped)


def _texts(records: Iterable[Record], skipped: Skipped) -> Iterator[Text]:
    for record in records:
        try:
            text = text_of(record.fields, "text")
        except UnusableError as problem:
            skip(skipped, str(problem), record.place)
        else:
            yield Text(record.place, text)


def _unpacked(file: Any, start: bytes) -> Iterable[bytes]:
    """The lines of a file, decompressed if it is compressed."""
    for first, name in _COMPRESSIONS.items():
        if start.startswith(first):
            return io.BufferedReader(pa.input_stream(file, compression=name), _BUFFER)
    lines: Iterable[bytes] = file
    return lines


def _lines(uri: str, lines: Iterable[bytes], skipped: Skipped) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{uri}:{number}"
        try:
            fields = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            skip(skipped, "not UTF-8", place)
        except (ValueError, RecursionError):
            skip(skipped, "not JSON", place)
        else:
            if isinstance(fields, dict):
                yield Record(place, fields)
            else:
                skip(skipped, "not a JSON object", place)


def _rows(uri: str, file: Any, columns: Sequence[str], needed: Sequence[str]) -> Iterator[Record]:
    parquet = pq.ParquetFile(file)
    found = parquet.schema_arrow.names
    if not set(needed) & set(found):
        raise TrainingError(f"{uri}: has no column {' or '.join(needed)}; columns found: {', '.join(found)}")
    number = 0
    for batch in parquet.iter_batches(_ROWS, columns=[name for name in found if name in columns]):
        for fields in batch.to_pylist():
            number += 1
            yield Record(f"{uri}:{number}", fields)
