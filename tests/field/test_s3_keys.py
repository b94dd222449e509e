"""Keys of S3 objects as buckets of the field have them, on a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
import s3fs

from memorag_pipeline.pipeline import Pipeline
from tests.field.cases import FIELD, Case, check_each, each_case
from tests.field.reading import Corpus, read_corpus
from tests.fixtures.corpus import spec_of
from tests.fixtures.s3 import S3Server


def _keys() -> list[str]:
    keys: list[str] = json.loads((FIELD / "s3_keys.json").read_text(encoding="utf-8"))
    return keys


def _prefixes(keys: list[str]) -> set[str]:
    """Keys that are also the folder of another."""
    return {key for key in keys if any(other.startswith(f"{key}/") for other in keys)}


def _group(name: str) -> list[str]:
    """The keys of a case: `markers` end with /, `odd` are all others that neither are a folder nor in one."""
    keys = _keys()
    named = [key for key in keys if key == name or key.startswith(f"{name}/")]
    both = _prefixes(keys)
    if name == "markers":
        return [key for key in keys if key.endswith("/")]
    if name == "odd":
        return [key for key in keys if not key.endswith("/") and key not in both and key.partition("/")[0] not in both]
    if not named:
        pytest.skip(f"s3_keys.json#{name}: which keys it is about is not written")
    return named


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Corpus]:
    """A bucket with an object at each key, and what is extracted from it. Markers and `zero.md` are empty."""
    name = s3_server.new_bucket()
    filesystem = s3fs.S3FileSystem(**s3_server.options())
    for number, key in enumerate(_keys()):
        body = b"" if key.endswith("/") or key == "zero.md" else f"Words of object {number}.\n".encode()
        filesystem.call_s3("put_object", Bucket=name, Key=key, Body=body)
    source = {"uris": [f"s3://{name}"], "storage_options": s3_server.options(), "documents_per_part": 64}
    store = {"uri": str(tmp_path_factory.mktemp("keys") / "store")}
    return name, read_corpus(Pipeline(spec_of(FIELD, source=source, store=store)))


@each_case("s3_keys.json#")
def test_objects_are_read_by_their_key(case: Case, bucket: tuple[str, Corpus]) -> None:
    name, corpus = bucket
    keys = _group(case.name.partition("#")[2])
    numbers = {number for number, key in enumerate(_keys()) if key in keys}
    texts = {row["text"] for row in corpus.documents}
    read = [number for number in numbers if f"Words of object {number}.\n" in texts]
    listed = [key for key in keys if f"s3://{name}/{key}" in corpus.listed]
    check_each(
        case,
        {
            "documents": lambda value: _equal(len(read), value, [row["detail"] for row in corpus.refused]),
            "listed": lambda value: _equal(listed, keys if value else [], corpus.listed),
        },
    )


def _equal(found: Any, expected: Any, shown: Any) -> None:
    assert found == expected, shown
