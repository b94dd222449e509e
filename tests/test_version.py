"""The public API: what a service gets from a published version, made by the real stages with the real models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import s3fs

import memorag_pipeline
from memorag_pipeline import Version, open_version
from memorag_pipeline.errors import ArgumentError, CorruptBlobError, NotFoundError, UntrustedReferenceError
from memorag_pipeline.jobs.answers.ask import recall_questions
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.verify import verify
from tests.fixtures.s3 import S3Server

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


def test_version_takes_a_channel_as_the_command_line_does(published: Path) -> None:
    assert open_version(str(published), "production").number == 1
    assert open_version(str(published), "2").number == 2
    with pytest.raises(NotFoundError, match=r"no channel 'staging'; it has: production"):
        open_version(str(published), "staging")


def test_mistakes_of_the_caller_are_errors_of_the_package(published: Path) -> None:
    with pytest.raises(ArgumentError, match="not both"):
        open_version(str(published), version=1, channel="production")
    with pytest.raises(ArgumentError, match="version True: give a number, or the name of a channel"):
        open_version(str(published), version=True)
    version = open_version(str(published))
    for k in (0, -1, True, 2.5, "3"):
        with pytest.raises(ArgumentError, match="a number of passages from 1; found 'break', k="):
            version.search("break", k=k)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="search takes a text"):
        version.search(["break"])  # type: ignore[arg-type]


def test_a_service_asks_cheaply_whether_there_is_a_newer_version(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = open_version(str(published), "production")
    monkeypatch.setattr(type(version.store.versions), "manifest", None)  # no manifest is read for it
    assert (version.newest(), version.newest("production")) == (2, 1)
    with pytest.raises(NotFoundError, match="no channel 'staging'"):
        version.newest("staging")


def test_threads_share_one_version(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memorag_pipeline.retrieval import embedder

    loads: list[object] = []
    load = embedder.load_whole
    monkeypatch.setattr(
        embedder, "load_whole", lambda *given, **options: loads.append(given) or load(*given, **options)
    )
    embedder._load.cache_clear()
    version = open_version(str(published))
    queries = [" ".join(["the break statement"] * length) for length in (1, 40, 3, 90) * 8]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda query: version.search(query, k=3), queries))
    assert len(loads) == 1
    assert found == [version.search(query, k=3) for query in queries]


def test_what_a_version_gives_is_printed_in_a_line(published: Path) -> None:
    version = open_version(str(published))
    assert repr(version) == f"<Version 2 of file://{published}>"
    passage = version.search("How do I end the nearest loop early?", k=1)[0]
    assert repr(passage).startswith(f"<Passage {passage.score:.3f} {passage.uri} {passage.start}-{passage.end}: '")
    memory = next(iter(version.memories().values()))
    assert repr(memory) == f"<BeaconMemory: {memory.tokens} tokens in {memory.slots} slots, windows of 64>"
    assert max(map(len, map(repr, (passage, memory)))) < 300


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
    assert repr(first).startswith("<Answer answered 'What does the break statement do?': ")
    assert [answer.question for answer in version.answer(" ")] == [""]  # one text is one question
    assert [recollection.question for recollection in version.recall(" ")] == [""]


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
        (lambda: version.search("loop"), "index/00000.faiss", "was altered"),
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


def roles(published: Path) -> list[str]:
    return sorted({blob.role for blob in open_version(str(published)).manifest.blobs})


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short"])
def test_damage_in_every_kind_of_blob_is_named_by_whoever_reads_it(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    found = roles(published)
    assert {"inventory", "documents", "chunks", "shards", "memory", "embeddings", "index", "segment_rows"} <= set(found)
    for role in found:
        root = tmp_path / role
        shutil.copytree(published, root)
        version = open_version(str(root))
        (blob, *_) = version.manifest.of_role(role)
        path = root / blob.ref.key
        data = bytearray(path.read_bytes())
        if damage == "cut short":
            del data[-1]
        else:
            data[len(data) // 3] ^= 0x10
        path.chmod(0o644)
        path.write_bytes(data)

        problem = "was altered" if damage == "a flipped bit" else f"has {len(data)} bytes instead of {len(data) + 1}"
        named = [(item.role, item.path) for item in verify(version.store, version.number) if problem in item.problem]
        same = [(item.role, item.path) for item in version.manifest.blobs if item.digest == blob.digest]
        assert named == same, role
        with pytest.raises(CorruptBlobError, match=rf"{blob.path} of version 2.* {problem}"):
            read(version, role)


def read(version: Version, role: str) -> None:
    """Use the blobs of a role as a service or the next refresh does."""
    uses: dict[str, Callable[[], object]] = {
        "documents": lambda: list(version.documents()),
        "chunks": lambda: list(version.chunks()),
        "memory": lambda: list(version.memories().values()),
        "index": lambda: version.searcher,
        "segment_rows": lambda: version.search("loop"),
    }
    if role in uses:
        uses[role]()
        return
    for blob in version.manifest.of_role(role):
        version.store.blobs.get_table(blob.ref, name=f"{blob.path} of version {version.number}")


def test_only_what_is_asked_for_is_read(
    published: Path, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From S3: opening reads the manifest, a search no memory, a question to one shard the memory of that shard."""
    bucket, options = s3_server.new_bucket(), s3_server.options()
    s3fs.S3FileSystem(**options).put(str(published), f"{bucket}/kb/topics", recursive=True)
    with monkeypatch.context() as fresh:  # the models stay where they are
        fresh.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
        version = open_version(f"s3://{bucket}/kb/topics", storage_options=options)
    kinds = {blob.digest: blob.role for blob in version.manifest.blobs}

    def fetched() -> Counter[str]:
        return Counter(kinds[path.name] for path in (tmp_path / "cache" / "blobs").glob("??/*"))

    assert fetched() == {}
    (passage,) = version.search("How do I end the nearest loop early?", k=1)
    assert fetched() == {"index": 1, "segment_rows": 1, "chunks": 1}
    assert passage.shard_id in list(version.memories())
    assert fetched() == {"index": 1, "segment_rows": 1, "sections": 1, "chunks": 1}
    (found,) = recall_questions(
        version,
        ["How do I end the nearest loop early?"],
        AnswerSettings.of_version(version.manifest, shards_per_question=1, clues=("surrogates",), clue_tokens=4),
    )
    assert len(found.shard_ids) == 1
    assert fetched() == {"index": 1, "segment_rows": 1, "sections": 1, "chunks": 1, "memory": 1}
    assert len(version.memories()) > 1
    next(version.documents())
    assert fetched()["documents"] == 1


def test_a_local_store_is_used_in_place(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    version = open_version(str(published))
    assert list(version.documents()) and version.searcher
    assert not (tmp_path / "cache" / "blobs").exists()


@pytest.mark.parametrize(
    ("section", "key", "reference"),
    [
        ("memory", "model", "/etc"),
        ("memory", "model", "~/model"),
        ("memory", "model", "./model"),
        ("memory", "model", "file:///etc"),
        ("memory", "model", "http://169.254.169.254/latest"),
        ("memory", "model", "s3://elsewhere/model"),
        ("memory", "adapter", "relative.safetensors"),
        ("memory", "adapter", "s3://elsewhere/adapter@1"),
        ("memory", "revision", "../../../refs"),
        ("embedding", "model", "/etc"),
        ("embedding", "model", "memory://model"),
        ("embedding", "model", ["/etc"]),
    ],
)
def test_a_manifest_from_elsewhere_opens_no_path_and_no_url(
    published: Path, tmp_path: Path, section: str, key: str, reference: object
) -> None:
    """The writer of the manifest chose the reference; searching and asking do not follow it."""
    root = tmp_path / "topics"
    shutil.copytree(published, root)
    store = CorpusStore(str(root))
    manifest = store.versions.manifest(1)
    evil = {**manifest.spec, section: {**manifest.spec[section], key: reference}}
    number = store.versions.publish(manifest.model_copy(update={"spec": evil}), "evil").version
    version = open_version(str(root), version=number)
    assert list(version.documents())
    uses: list[Callable[[], object]] = [lambda: version.answer(["loop"]), lambda: version.recall(["loop"])]
    if section == "memory":
        uses += [lambda: list(version.memories().values())]
        assert version.search("loop", k=1)  # opens only the embedding model
    else:
        uses += [lambda: version.search("loop")]
    for use in uses:
        with pytest.raises(
            UntrustedReferenceError, match=rf"version {number} of .*{section}.{key} .*trust_models=True"
        ):
            use()
    if (section, reference) == ("memory", "/etc"):
        with pytest.raises(NotFoundError, match=r"model /etc: /etc/config.json cannot be read"):
            open_version(str(root), version=number, trust_models=True).answer(["loop"])


def test_models_and_adapters_inside_known_packages_need_no_trust(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "topics"
    shutil.copytree(published, root)
    store = CorpusStore(str(root))
    manifest = store.versions.manifest(1)
    for adapter, message in (
        ("package:smollm2-135m-beacon", None),
        ("package:../../../etc/passwd", "no adapter comes with this package by that name"),
    ):
        memory = {**manifest.spec["memory"], "kind": "beacon", "adapter": adapter}
        named = manifest.model_copy(update={"spec": {**manifest.spec, "memory": memory}})
        version = open_version(str(root), version=store.versions.publish(named, "run-3").version)
        version.require_trusted_models("memory", "embedding")
        assert version.search("loop", k=1)
        if message is not None:
            with pytest.raises(NotFoundError, match=message):
                list(version.memories().values())


def test_names_in_a_manifest_are_names_and_no_paths(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "topics"
    shutil.copytree(published, root)
    store = CorpusStore(str(root))
    manifest = store.versions.manifest(1)
    blobs = [blob.model_copy(update={"path": f"../../../../{tmp_path}/{blob.path}"}) for blob in manifest.blobs]
    number = store.versions.publish(manifest.model_copy(update={"blobs": tuple(blobs)}), "evil").version
    before = set(tmp_path.rglob("*"))
    version = open_version(str(root), version=number)
    assert list(version.documents()) and version.search("loop", k=1)
    assert verify(store, number) == []
    assert set(tmp_path.rglob("*")) == before
    with pytest.raises(CorruptBlobError, match=r"language is '\.\./\.\./en'"):
        evil = manifest.model_copy(update={"language": "../../en"})
        open_version(str(root), version=store.versions.publish(evil, "evil").version).answer(["loop"])


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_versions'"):
        memorag_pipeline.open_versions  # noqa: B018


def test_importing_the_package_is_cheap_and_opening_a_version_loads_no_model_library(published: Path) -> None:
    script = (
        "import sys, memorag_pipeline\n"
        "assert not {'pyarrow', 'fsspec', 'pydantic', 'yaml'} & set(sys.modules), 'not lazy'\n"
        f"version = memorag_pipeline.open_version({str(published)!r})\n"
        "assert next(version.documents())['text']\n"
        "heavy = {'torch', 'transformers', 'FlagEmbedding', 'faiss', 'duckdb', 'airflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
