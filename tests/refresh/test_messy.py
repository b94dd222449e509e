"""Real files, good and broken, of many formats: what the pipeline extracts is what their manifest expects.

`MEMORAG_MESSY` names another folder of such files: `manifest.jsonl`, and `generators.jsonl` with recipes of files that
are made here, because they cannot be stored or are too large to.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import REASONS, Refused, advice
from memorag_pipeline.corpus.records import read_records
from memorag_pipeline.corpus.text import read_plain, read_text
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.source import RecordsSpec
from tests.refresh.conftest import refresh

_DEFAULT = Path(__file__).parents[3] / "shared" / "data" / "messy" / "dev"
FOLDER = Path(os.environ.get("MEMORAG_MESSY") or _DEFAULT).resolve()
_LARGE = 4 << 20  # bytes; cutting a larger file into chunks takes a test too long, so it is only read

Row = dict[str, Any]


def _rows(name: str) -> list[Row]:
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


STORED, GENERATED = _rows("manifest.jsonl"), _rows("generators.jsonl")
ROWS = [*STORED, *GENERATED]
needs_rows = pytest.mark.skipif(not STORED, reason=f"there is no {FOLDER / 'manifest.jsonl'}")


def _ids(row: Row) -> str:
    return str(row["path"]).encode("unicode_escape").decode()


@dataclass(frozen=True)
class Extracted:
    """What the stages of the corpus made of all files, by path as the manifest writes it.

    `shards` are those that a document is in; `memorized` has the path of each section that a memory is read from.
    """

    documents: dict[str, Row]
    quarantine: dict[str, Row]
    chunks: dict[str, list[Row]]
    shards: dict[str, set[str]]
    memorized: list[str]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files of generators.jsonl."""
    folder = tmp_path_factory.mktemp("generated").resolve()
    for row in GENERATED:
        recipe, path = row["recipe"], folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if "symlink_to" in recipe:
            path.symlink_to(recipe["symlink_to"])
        elif not {"content", "unit"} & set(recipe):
            continue  # a recipe that this test does not know: its own row fails, as one that is in no table
        elif "name_bytes_hex" in recipe:
            place = os.fsencode(path.parent) + b"/" + bytes.fromhex(recipe["name_bytes_hex"])
            with open(place, "wb") as file:
                file.write(_content(recipe))
        else:
            path.write_bytes(_content(recipe))
    return folder


def _content(recipe: Row) -> bytes:
    if "content" in recipe:
        return str(recipe["content"]).encode()
    insert = recipe.get("insert", {"text": "", "after_unit": 0})
    before = recipe["unit"] * insert["after_unit"]
    text = before + insert["text"] + recipe["unit"] * (recipe["repeat"] - insert["after_unit"])
    return (text + ("\n" if recipe.get("newline_at_end") else "")).encode()


@pytest.fixture(scope="module")
def extracted(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    spec = CorpusSpec.model_validate(
        {
            "corpus": "messy",
            "source": {
                "uris": [str(FOLDER), str(generated)],
                "exclude": ["*.jsonl", *(row["path"] for row in GENERATED if _size(row) > _LARGE)],
            },
            "store": {"uri": str(tmp_path_factory.mktemp("messy-store"))},
            "memory": {"kind": "full", "model": "package:smollm2-135m-instruct"},
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            "compute": {"units_per_task": 100},
        }
    )
    refreshed = refresh(Pipeline(spec))

    def path_of(uri: str) -> str:
        path = uri.removeprefix("file://")
        return next(path[len(str(root)) + 1 :] for root in (FOLDER, generated) if path.startswith(f"{root}/"))

    chunks: dict[str, list[Row]] = {}
    for row in refreshed.rows("chunks"):
        chunks.setdefault(path_of(row["uri"]), []).append(row)
    shards: dict[str, set[str]] = {}
    for row in refreshed.rows("sections"):
        shards.setdefault(path_of(row["uri"]), set()).add(row["shard_id"])
    documents, quarantine = (
        {path_of(row["uri"]): row for row in refreshed.rows(role)} for role in ("documents", "quarantine")
    )
    memorized = [path_of(row["uri"]) for row in refreshed.rows("shards")]
    return Extracted(documents, quarantine, chunks, shards, memorized)


def _size(row: Row) -> int:
    recipe = row.get("recipe", {})
    return len(recipe.get("unit", "")) * int(recipe.get("repeat", 0))


@needs_rows
@pytest.mark.parametrize("row", ROWS, ids=_ids)
def test_what_is_extracted_is_what_is_expected(extracted: Extracted, generated: Path, parser: Parser, row: Row) -> None:
    accepted = {row["expected"], *row.get("also_accept", [])}
    path = row["path"]
    if _size(row) > _LARGE:
        text = read_text(path, (generated / path).read_bytes(), "en", parser, 64 << 20).text
    elif path in extracted.documents:
        text = extracted.documents[path]["text"]
    elif path in extracted.quarantine:
        refused = extracted.quarantine[path]
        outcome = "empty" if refused["reason"] in {"empty", "no_text_layer"} else "error"
        assert outcome in accepted or "error" in accepted, refused
        assert refused["reason"] in REASONS and refused["detail"]
        assert refused["advice"] == advice(refused["reason"])
        return
    else:
        assert row["format"] == "symlink" and accepted & {"empty", "error"}, "it is in no table"
        return
    assert "text" in accepted
    if row.get("must_not_contain"):
        assert row["must_not_contain"] not in text
    for words in (row["contains"], *row.get("also_contains", [])):
        assert words is None or " ".join(words.split()) in " ".join(text.split())
    if row["format"] in {"txt", "md", "rst"} and "encoding" not in row and path in extracted.documents:
        raw = _bytes_of(path, generated).decode("utf-8", "replace")
        assert text == raw.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").lstrip("\ufeff")


def _bytes_of(path: str, generated: Path) -> bytes:
    for folder in (FOLDER, generated):
        if (folder / path).exists():
            return (folder / path).read_bytes()
    named = next(row["recipe"]["name_bytes_hex"] for row in GENERATED if row["path"] == path)
    with open(os.fsencode((generated / path).parent) + b"/" + bytes.fromhex(named), "rb") as file:
        return file.read()


@needs_rows
def test_copies_have_one_text_one_memory_and_all_their_names(extracted: Extracted) -> None:
    for row in ROWS:
        original = row.get("duplicate_of")
        if original is None:
            continue
        one, other = extracted.documents[original], extracted.documents[row["path"]]
        assert one["text_digest"] == other["text_digest"] and one["document_id"] != other["document_id"]
        digests = [[chunk["digest"] for chunk in extracted.chunks[path]] for path in (original, row["path"])]
        assert digests[0] == digests[1]
        assert extracted.shards[original] == extracted.shards[row["path"]]
        assert (original in extracted.memorized) + (row["path"] in extracted.memorized) == 1


@needs_rows
@pytest.mark.parametrize("row", [row for row in STORED if "records" in row], ids=_ids)
def test_each_record_is_a_document_and_a_bad_one_costs_itself(parser: Parser, row: Row) -> None:
    data = (FOLDER / row["path"]).read_bytes()
    plain = read_plain(Path(row["path"]).name, data, "en", 64 << 20)
    found = [document for _, document in read_records(plain, RecordsSpec(), parser)]
    bad = [document for document in found if isinstance(document, Refused)]
    assert (len(found) - len(bad), len(bad)) == (row["records"], len(row.get("bad_lines", [])))
    assert {refused.reason for refused in bad} <= {"bad_record"}
    texts = [document.text for document in found if not isinstance(document, Refused)]
    assert row["contains"] is None or any(row["contains"] in text for text in texts)


@needs_rows
def test_the_manifest_names_every_file() -> None:
    """So that a file that was added is tested."""
    found = {str(Path(folder, name).relative_to(FOLDER)) for folder, _, names in os.walk(FOLDER) for name in names}
    listed = {row["path"] for row in STORED}
    assert found - listed <= {"manifest.jsonl", "generators.jsonl"}
