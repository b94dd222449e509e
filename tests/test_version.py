"""The public API: what a service gets from a published version, made by the real stages with the real models."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest

import memorag_pipeline
from memorag_pipeline import open_version
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.spec import CorpusSpec

NAMES = ("break", "pass", "lambda", "global")
EDIT = "\nA lambda can also be called where it stands.\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a corpus of four documents with two versions; channel `production` points to the first."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "source").mkdir()
    for name in NAMES:
        (folder / "source" / f"{name}.rst").write_text(topics[name], encoding="utf-8")
    pipeline = Pipeline(
        CorpusSpec.model_validate(
            {
                "corpus": "topics",
                "source": {"uris": [str(folder / "source")]},
                "store": {"uri": str(folder / "store")},
                "sharding": {"max_tokens": 512, "min_tokens": 64},
                "memory": {"kind": "full", "model": "package:smollm2-135m-instruct", "window": 64},
                "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            }
        )
    )
    refresh(pipeline, "run-1")
    pipeline.store.channels.promote("production", 1, by="test", why="first")
    with (folder / "source" / "lambda.rst").open("a", encoding="utf-8") as file:
        file.write(EDIT)
    assert refresh(pipeline, "run-2").version == 2
    return folder / "store" / "topics"


def test_a_version_is_opened_by_number_by_channel_or_as_the_newest(published: Path) -> None:
    assert open_version(str(published)).number == 2
    assert open_version(f"file://{published}", version=1).number == 1
    version = open_version(str(published), channel="production")
    assert (version.number, version.uri) == (1, f"file://{published}")
    assert version.manifest.counts["documents"] == len(NAMES)
    assert {model.role for model in version.manifest.models} == {"memory", "embedding"}


def test_what_is_not_there_is_told_with_what_is(published: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no version 9; it has: 1, 2"):
        open_version(str(published), version=9)
    with pytest.raises(NotFoundError, match=r"no channel 'staging'; it has: production"):
        open_version(str(published), channel="staging")
    with pytest.raises(NotFoundError, match=r"holds no version; refresh the corpus first, or correct the URI"):
        open_version(str(tmp_path))
    with pytest.raises(ValueError, match="not both"):
        open_version(str(published), version=1, channel="production")


def test_a_search_gives_passages_with_their_place(published: Path) -> None:
    version = open_version(str(published))
    passages = version.search("How do I end the nearest loop early?", k=3)
    assert len(passages) == 3
    assert passages[0].uri.endswith("/break.rst")
    assert [passage.score for passage in passages] == sorted((p.score for p in passages), reverse=True)
    texts = {row["document_id"]: row["text"] for row in version.documents()}
    shards = version.memories()
    for passage in passages:
        assert texts[passage.document_id][passage.start : passage.end] == passage.text
        assert passage.shard_id in shards


def test_documents_and_chunks_are_given_row_by_row(published: Path) -> None:
    version = open_version(str(published))
    documents = {row["document_id"]: row for row in version.documents()}
    assert sorted(Path(row["uri"]).stem for row in documents.values()) == sorted(NAMES)
    chunks = list(version.chunks())
    assert len(chunks) == version.manifest.counts["chunks"]
    for chunk in chunks:
        assert documents[chunk["document_id"]]["text"][chunk["start"] : chunk["end"]] == chunk["text"]


def test_a_version_stays_what_it_was(published: Path) -> None:
    def text(number: int) -> str:
        rows = open_version(str(published), version=number).documents()
        return next(row["text"] for row in rows if row["uri"].endswith("/lambda.rst"))

    assert EDIT.strip() not in text(1)
    assert EDIT.strip() in text(2)


def test_memories_are_mapped_into_memory_when_they_are_asked_for(published: Path) -> None:
    version = open_version(str(published))
    memories = version.memories()
    assert len(memories) == version.manifest.counts["shards"] > 1
    assert sum(memories[shard].tokens for shard in memories) >= version.manifest.counts["tokens"]
    (first, *_) = memories
    assert memories[first] is memories[first]
    blob = next(blob for blob in version.manifest.of_role("memory") if first in blob.path)
    assert blob.digest in Path("/proc/self/maps").read_text()
    with pytest.raises(KeyError):
        memories["no-such-shard"]


def test_questions_are_answered_with_evidence(published: Path) -> None:
    version = open_version(str(published), channel="production")
    first, second = version.answer(["What does the break statement do?", " "])
    assert first.status == "answered" and first.answer
    assert any(passage.uri.endswith("/break.rst") for passage in first.evidence)
    assert second.status == "error" and second.error


def test_damaged_blobs_are_named_before_they_are_used(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "topics"
    shutil.copytree(published, root)

    def stored(role: str) -> Path:
        blob = open_version(str(root)).manifest.of_role(role)[0]
        return root / blob.ref.key

    for role in ("index", "documents", "memory"):
        path = stored(role)
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    stored("chunks").unlink()

    version = open_version(str(root))
    shard = Path(version.manifest.of_role("memory")[0].path).stem
    for use, name, problem in (
        (lambda: version.search("loop"), "index.faiss", "was altered"),
        (lambda: list(version.documents()), "documents/00000.parquet", "was altered"),
        (lambda: list(version.chunks()), "chunks/00000.parquet", "is missing"),
        (lambda: version.memories()[shard], f"memories/{shard}.safetensors", "was altered"),
    ):
        with pytest.raises(CorruptBlobError, match=rf"{name} of version 2: blob sha256:[0-9a-f]{{64}} at .* {problem}"):
            use()

    manifest = root / version.store.versions.record(2).manifest.key
    manifest.chmod(0o644)
    manifest.write_text("{}")
    with pytest.raises(CorruptBlobError, match=r"manifest of version 2: blob .* has 2 bytes instead of"):
        open_version(str(root))
    assert open_version(str(root), version=1).number == 1


def test_the_package_exports_this_and_no_more() -> None:
    assert sorted(memorag_pipeline.__all__) == [
        "CorpusSpec",
        "MemoragError",
        "Version",
        "__version__",
        "open_version",
        "read_spec",
    ]
    for name in memorag_pipeline.__all__:
        assert getattr(memorag_pipeline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'open_versions'"):
        memorag_pipeline.open_versions  # noqa: B018


def test_importing_the_package_is_cheap_and_opening_a_version_loads_no_model_library(published: Path) -> None:
    assert seconds_of("import memorag_pipeline") - seconds_of("pass") < 0.3

    script = (
        "import sys, memorag_pipeline\n"
        "assert not {'pyarrow', 'fsspec', 'pydantic', 'yaml'} & set(sys.modules), 'not lazy'\n"
        f"version = memorag_pipeline.open_version({str(published)!r})\n"
        "assert next(version.documents())['text']\n"
        "heavy = {'torch', 'transformers', 'FlagEmbedding', 'faiss', 'dlt', 'duckdb', 'airflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def seconds_of(script: str) -> float:
    """Seconds that Python takes to run `script`, the best of three."""

    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], check=True)
        return time.perf_counter() - started

    return min(once() for _ in range(3))
