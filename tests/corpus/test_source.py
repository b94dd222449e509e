"""Listing and reading a source: globs, odd names, links, and errors that name the place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest
import s3fs

from memorag_pipeline.corpus import clutter
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.errors import StorageError
from memorag_pipeline.specs.source import SourceSpec
from tests.fixtures.s3 import S3Server

ODD_NAMES = (
    "50% off & more #1?.txt",
    "naïve café ☕ итог.txt",
    "a%20b.txt",
    "std::vector.txt",
    "we*rd[1].txt",
    " x .txt",
)


def make_source(*uris: str | Path, **values: object) -> Source:
    return Source(SourceSpec.model_validate({"uris": [str(uri) for uri in uris], **values}))


def names(source: Source) -> list[str]:
    return [item.uri.rsplit("/", 1)[-1] for item in source.list()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "kb"
    for name in ("a.rst", "b.md", "sub/c.rst", "sub/deep/d.rst", "old/e.rst"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["**"], [], ["a.rst", "b.md", "e.rst", "c.rst", "d.rst"]),
        (["**/*.rst"], [], ["a.rst", "e.rst", "c.rst", "d.rst"]),
        (["*.rst"], [], ["a.rst"]),
        (["sub/**"], [], ["c.rst", "d.rst"]),
        (["sub/*"], [], ["c.rst"]),
        (["**/*.rst", "*.md"], ["old/**", "**/d.*"], ["a.rst", "b.md", "c.rst"]),
        (["**/[a-c].*"], [], ["a.rst", "b.md", "c.rst"]),
    ],
)
def test_globs_are_relative_to_the_uri(
    folder: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    assert names(make_source(folder, include=include, exclude=exclude)) == expected


def test_objects_are_sorted_by_uri_and_listed_once(folder: Path) -> None:
    source = make_source(folder / "sub", folder, f"file://{folder}/b.md")
    uris = [item.uri for item in source.list()]
    assert uris == sorted(set(uris)) and len(uris) == 5
    assert uris[0] == f"file://{folder}/a.rst"


def test_odd_names_survive_the_round_trip(tmp_path: Path) -> None:
    for name in ODD_NAMES:
        (tmp_path / name).write_text(name)
    source = make_source(tmp_path)
    items = source.list()
    assert sorted(item.uri for item in items) == sorted(f"file://{tmp_path}/{name}" for name in ODD_NAMES)
    for item in items:
        data, now = source.read(item.uri, 100)
        assert item.uri.endswith("/" + data.decode())
        assert now == item


def test_a_name_that_is_not_utf8_is_written_with_escapes_and_read_back(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/invalid-\xff.txt", "wb") as file:
        file.write(b"words")
    (tmp_path / "literal-\\xff.txt").write_bytes(b"other")
    source = make_source(tmp_path)
    found = {item.uri.rsplit("/", 1)[-1]: source.read(item.uri, 100)[0] for item in source.list()}
    assert found == {"invalid-\\xff.txt": b"words", "literal-\\xff.txt": b"other"}


def test_links_to_files_are_read_and_loops_are_not_followed(folder: Path) -> None:
    (folder / "loop").symlink_to(".")
    (folder / "link.rst").symlink_to("sub/c.rst")
    (folder / "broken.rst").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.rst")
    source = make_source(folder)
    assert names(source) == ["a.rst", "b.md", "link.rst", "e.rst", "c.rst", "d.rst"]
    link = next(item for item in source.list() if item.uri.endswith("link.rst"))
    assert source.read(link.uri, 100) == (b"sub/c.rst", link)


def test_a_link_out_of_the_source_is_listed_and_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.rst").write_text("secret")
    (folder / "out.rst").symlink_to(tmp_path / "secret.rst")
    (folder / "chain.rst").symlink_to("out.rst")
    (folder / "folder").symlink_to(tmp_path)
    source = make_source(folder)
    listed = {item.uri.rsplit("/", 1)[-1]: item for item in source.list()}
    assert {"out.rst", "chain.rst"} <= set(listed) and "secret.rst" not in listed
    for name in ("out.rst", "chain.rst"):
        assert listed[name].identity == (0, None)
        with pytest.raises(Refused) as refused:
            source.read(listed[name].uri, 100)
        assert refused.value.reason == "outside_source"
    both = make_source(folder, tmp_path / "secret.rst")
    assert {both.read(item.uri, 100)[0] for item in both.list() if item.uri.endswith("out.rst")} == {b"secret"}


def test_a_root_that_is_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to(folder)
    source = make_source(tmp_path / "root")
    assert len(source.list()) == 5 and source.read(source.list()[0].uri, 100)[0] == b"a.rst"


def test_globs_of_records_are_relative_to_the_uri(folder: Path) -> None:
    source = make_source(folder, records={"include": ["sub/**"]})
    assert [source.holds_records(item.uri) for item in source.list()] == [False, False, False, True, True]


def test_reading_stops_at_the_limit(folder: Path) -> None:
    source = make_source(folder)
    assert source.read(f"file://{folder}/sub/deep/d.rst", 5)[0] == b"sub/de"


def test_the_time_of_a_local_file_is_its_identity(folder: Path) -> None:
    source = make_source(folder, include=["a.rst"])
    os.utime(folder / "a.rst", (1, 4_102_444_800.5))
    (before,) = source.list()
    assert before.etag is None and before.modified == "2100-01-01T00:00:00.500000+00:00"
    os.utime(folder / "a.rst")
    assert source.list()[0].identity != before.identity


def test_an_edit_that_keeps_size_and_time_changes_the_identity(folder: Path) -> None:
    """As when an archive with fixed times is unpacked over the files."""
    source = make_source(folder, include=["a.rst"])
    os.utime(folder / "a.rst", (1, 1))
    (before,) = source.list()
    time.sleep(0.02)
    (folder / "a.rst").write_text("b.rst")
    os.utime(folder / "a.rst", (1, 1))
    (after,) = source.list()
    assert before.size == after.size and before.identity != after.identity


def test_a_folder_in_memory(memory_folder: str) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file(f"{memory_folder}/kb/a b#?.txt", b"words")
    source = make_source(f"{memory_folder}/kb")
    (item,) = source.list()
    assert item.uri.endswith("/kb/a b#?.txt")
    assert source.read(item.uri, 100) == (b"words", item)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere.*no such bucket or folder"):
        make_source(tmp_path / "nowhere").list()
    with pytest.raises(StorageError, match="not a place that fsspec knows"):
        make_source("nonsense://bucket/kb")


def test_an_object_that_is_gone_is_one_refusal_a_folder_an_error(folder: Path) -> None:
    source = make_source(folder)
    with pytest.raises(Refused) as refused:
        source.read(f"file://{folder}/gone.rst", 100)
    assert refused.value.reason == "download_failed"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageError, match="no such bucket or folder"):
        source.read(f"file://{folder}/a.rst", 100)


def test_s3(s3_server: S3Server) -> None:
    bucket, options = s3_server.new_bucket(), s3_server.options()
    filesystem = s3fs.S3FileSystem(**options)
    for name in ODD_NAMES:
        filesystem.pipe_file(f"{bucket}/kb/{name}", name.encode())
    filesystem.touch(f"{bucket}/kb/folder/")
    source = make_source(f"s3://{bucket}/kb", storage_options=options)
    items = source.list()
    assert sorted(item.uri for item in items) == sorted(f"s3://{bucket}/kb/{name}" for name in ODD_NAMES)
    for item in items:
        assert item.etag and '"' not in item.etag and item.modified is None
        data, now = source.read(item.uri, 100)
        assert item.uri.endswith("/" + data.decode()) and now == item

    first = items[0]
    s3fs.S3FileSystem(**options, skip_instance_cache=True).pipe_file(first.uri, b"n" * first.size)
    assert source.list()[0].identity != first.identity
    assert source.read(first.uri, 100)[1].identity != first.identity
    with pytest.raises(Refused):
        source.read(f"s3://{bucket}/kb/gone", 100)
    assert make_source(f"s3://{bucket}/other", storage_options=options).list().column("uri").to_pylist() == []


def test_s3_errors_name_the_place(s3_server: S3Server) -> None:
    bucket, options = s3_server.new_bucket(), s3_server.options()
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/kb.*no such bucket"):
        make_source("s3://no-such-bucket/kb", storage_options=options).list()
    wrong = {**options, "key": "nobody", "secret": "SECRET-VALUE"}
    with pytest.raises(StorageError, match=rf"{bucket}.*permission denied") as denied:
        make_source(f"s3://{bucket}", storage_options=wrong).list()
    assert "SECRET-VALUE" not in str(denied.value)
    started = time.monotonic()
    once = {"retries": {"max_attempts": 1}}
    nobody = {**options, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": once}
    with pytest.raises(StorageError, match=rf"{bucket}.*check the endpoint"):
        make_source(f"s3://{bucket}", storage_options=nobody).list()
    assert time.monotonic() - started < 30


CLUTTER = (
    *(".git/config", "sub/.GIT/objects/ab/cd", ".env", "deploy/.env.production", "keys/server.pem", "tls/site.KEY"),
    *("id_rsa", ".ssh/known_hosts", ".aws/credentials", ".npmrc", ".bash_history", "infra/.terraform/x.md"),
    *("infra/prod.tfstate", "web/node_modules/a/README.md", "__pycache__/a.txt", "a.md~", ".DS_Store", "sub/._a.md"),
    *("Thumbs.db", "desktop.ini"),
)
KEPT = (".github/README.md", "env.md", "a.env.md", "keys.md", ".gitignore", "git/a.md", "~$Report.docx", "pem/notes.md")


def test_secrets_and_files_of_tools_are_left_out_unless_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*CLUTTER, *KEPT):
        path = tmp_path / "kb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    caplog.set_level("INFO")

    def listed(source: Source) -> set[str]:
        return {item.uri.partition("/kb/")[2] for item in source.list()}

    usual = make_source(tmp_path / "kb")
    assert listed(usual) == set(KEPT) and usual.left_out == len(CLUTTER)
    assert f"leaves out {len(CLUTTER)} objects" in caplog.text
    everything = make_source(tmp_path / "kb", default_exclude=False)
    assert listed(everything) == {*CLUTTER, *KEPT} and everything.left_out == 0
    assert make_source(tmp_path / "kb", exclude=["**"]).left_out == 0


def test_the_docs_name_all_that_is_left_out() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingestion.md").read_text(encoding="utf-8")
    for kind, patterns in clutter.CLUTTER.items():
        assert f"| {kind} | {' '.join(f'`{pattern}`' for pattern in patterns)} |" in page


def test_a_source_within_such_a_folder_is_not_empty(tmp_path: Path) -> None:
    folder = tmp_path / ".git" / "node_modules"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text("words")
    (folder / ".env").write_text("named itself")
    assert names(make_source(folder)) == ["a.md"]
    assert names(make_source(folder / ".env")) == [".env"]
    assert names(make_source(f"file://{folder}", f"file://{folder}/.env")) == [".env", "a.md"]


def test_the_first_page_is_counted_without_listing_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(folder, include=["**/*.rst"])
    page = source.first_page()
    assert (page.objects, page.matching, page.whole) == (5, 4, True)
    single = make_source(folder / "a.rst").first_page()
    assert (single.objects, single.matching, single.whole) == (1, 1, True)
    monkeypatch.setattr("memorag_pipeline.corpus.source._PAGE", 1)
    monkeypatch.setattr(source, "list", lambda: pytest.fail("all of it was listed"))
    assert (source.first_page().objects, source.first_page().whole) == (1, False)


def test_an_address_without_a_scheme_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:18333")  # what a spec cannot check
    options = {"key": "a", "secret": "b", "client_kwargs": {"region_name": "x"}}
    for look in (Source.list, Source.first_page):
        with pytest.raises(StorageError, match=r"s3://lake/docs: the storage options are not accepted: Invalid end"):
            look(make_source("s3://lake/docs", storage_options=options))
