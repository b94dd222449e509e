"""What is not the pipeline's in a store: nothing stops at it, nothing reads or deletes it, and `gc` names it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import s3fs
from typer.testing import CliRunner

from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import RunReport
from memorag_pipeline.runs.tasks import Run, Task, read_reports, run_task
from memorag_pipeline.storage import CorpusStore, Outcome
from memorag_pipeline.storage.garbage import sweep as swept
from memorag_pipeline.storage.layout import foreign_text, is_ours
from memorag_pipeline.storage.packages.export import export_version
from memorag_pipeline.storage.packages.import_version import import_version
from memorag_pipeline.storage.verify import verify
from tests.fixtures.s3 import S3Server
from tests.storage.conftest import Root, manifest_of
from tests.storage.faults import StoreClock, open_faulty

RUN = Run("night", datetime(2026, 1, 2, tzinfo=UTC))
DIGEST = "ab" + "0" * 62

FOREIGN = [
    ".DS_Store",
    ".nfs000000000000002a00000001",
    "x y",
    "notes.txt",
    "versions.json",
    "lost+found/x",
    "blobs/.DS_Store",
    "blobs/sha256/ab/.nfs000000000000002a00000001",
    "blobs/sha256/ab/x y",
    f"blobs/sha256/ab/{DIGEST}.bak",
    f"blobs/sha256/ff/{DIGEST}",
    "units/.DS_Store",
    "units/memorize/ab/.nfs000000000000002a00000001",
    "units/memorize/ab/x.json",
    "versions/.nfs000000000000002a00000001",
    "versions/8.json",
    "versions/²²²²²²²²²²²²²²²²²²²².json",
    f"versions/{9:020d}.json~",
    f"versions/{9:020d}.json/x",
    "retired/x.json",
    "retired/7.json",
    "channels/notes.txt",
    "channels/.DS_Store",
    "channels/production/.DS_Store",
    "channels/production/x y",
    "channels/production/99.json",
    "channels/.Trash-0/files/x",
    "intents/x.json",
    "intents/.nfs000000000000002a00000001",
    "deleting/notes.txt",
    "deleting/.DS_Store",
    "condemned/x.json",
    "condemned/.nfs000000000000002a00000001",
    "runs/.DS_Store",
    f"runs/{RUN.name}/.nfs000000000000002a00000001",
    "runs/zz/extract-0000.json",
    "job_runs/faq/.DS_Store",
    "reports/refresh/x y",
    "reports/jobs/notes.txt",
    "reports/jobs/.DS_Store",
    "reports/refresh/zz.json",
    "units/a\nb\udcff",
]


class Tended:
    """A local store with something in each of its folders, with a separate clock."""

    def __init__(self, folder: Path, clock: StoreClock) -> None:
        self.folder, self.clock = folder, clock
        self.store, _ = open_faulty((str(folder), {}), clock)
        for text in (b"first", b"second", b"third"):
            self.publish(text)
        self.store.channels.promote("production", 2, by="test", why="good")
        self.store.versions.retire(1, by="test", why="old")
        blob = self.store.blobs.put_bytes(b"memory")
        self.store.units.record(Outcome(stage="memorize", fingerprint=DIGEST, blobs={"memory": blob}))
        run_task(self.store, Task(RUN, "extract"), lambda: {"documents": 1})
        report = RunReport(corpus="topics", uri=self.store.uri, run_id="night", state="published", stages=())
        archive.write(self.store.objects, RUN, report, "<p>")

    def publish(self, text: bytes) -> int:
        return self.store.versions.publish(manifest_of(self.store, documents=text), "run").version

    def sweep(self) -> swept.SweepReport:
        self.clock.advance(swept.GRACE + timedelta(hours=1))
        return swept.sweep(self.store, outdated=archive.outdated(self.store.objects))

    def put(self, key: str) -> Path:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something of somebody else")
        self.clock.modified[str(path)] = self.clock.now
        return path


@pytest.fixture
def tended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tended]:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    clock = StoreClock()
    clock.rule(monkeypatch)
    yield Tended(tmp_path / "store", clock)


@pytest.mark.parametrize("key", FOREIGN)
def test_what_is_not_ours_stops_nothing_and_is_named_by_the_sweep(tended: Tended, key: str, tmp_path: Path) -> None:
    path, store = tended.put(key), tended.store
    named = key.split("/")[0] + "/" if key.startswith("lost+found") else key

    assert list(store.versions.numbers()) == [1, 2, 3]
    assert store.versions.retained() == [2, 3]
    assert store.channels.targets() == {"production": 2}
    assert [record.version for record in store.channels.history("production")] == [2]
    assert verify(store, 3) == []
    assert tended.publish(b"fourth") == 4
    store.channels.promote("production", 4, by="test", why="better")
    store.versions.retire(2, by="test", why="old")
    assert [report.stage for report in read_reports(store.objects)] == ["extract"]
    assert archive.jobs(store.objects) == []
    assert archive.newest(store.objects) == archive.of_run(store.objects, "night") != None  # noqa: E711

    first, second = tended.sweep(), tended.sweep()
    assert first.foreign == second.foreign == (named,)
    assert first.condemned and len(second.deleted) >= len(first.condemned)
    assert path.read_bytes() == b"something of somebody else"

    export_version(store, 4, tmp_path / "package")
    assert import_version(tmp_path / "package", CorpusStore(str(tmp_path / "other")), "run").version == 1


def test_a_store_of_ours_alone_has_nothing_foreign(tended: Tended) -> None:
    assert tended.sweep().foreign == ()
    assert all(is_ours(path.relative_to(tended.folder).as_posix()) for path in tended.folder.rglob("*.json"))


def test_a_package_with_files_of_a_file_manager_is_imported(tended: Tended, tmp_path: Path) -> None:
    export_version(tended.store, 3, tmp_path / "package")
    (tmp_path / "package" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "package" / "versions" / "._x.json").write_bytes(b"x")
    assert import_version(tmp_path / "package", CorpusStore(str(tmp_path / "other")), "run").version == 1


BROKEN: list[tuple[str, Callable[[CorpusStore], object]]] = [
    (f"versions/{9:020d}.json", lambda store: store.versions.manifest(9)),
    (f"retired/{3:020d}.json", lambda store: store.versions.manifest(3)),
    (f"channels/production/{9:020d}.json", lambda store: store.channels.version("production")),
    (f"channels/production/{9:020d}.json", lambda store: store.channels.targets()),
    (f"intents/{'a' * 32}.json", lambda store: swept.sweep(store)),
    (f"condemned/{9:020d}.json", lambda store: swept.sweep(store)),
    (f"deleting/{'a' * 32}.json", lambda store: store.versions.publish(manifest_of(store, documents=b"x"), "run")),
]


@pytest.mark.parametrize(("key", "use"), BROKEN)
def test_what_has_a_name_of_ours_and_is_broken_is_named(
    tended: Tended, key: str, use: Callable[[CorpusStore], object]
) -> None:
    tended.put(key)
    with pytest.raises(CorruptBlobError, match=re.escape(key)):
        use(tended.store)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_named_and_keeps_nobody_waiting(tended: Tended, kind: str) -> None:
    key = f"versions/{9:020d}.json"
    (os.mkfifo if kind == "pipe" else os.mkdir)(tended.folder / key)
    store = CorpusStore(str(tended.folder))
    for use in (store.objects.read, store.objects.stat, lambda key: list(store.objects.pieces(key, 10))):
        with pytest.raises(StorageError, match=re.escape(key)):
            use(key)


def test_unfinished_writes_of_others_are_left_alone(tended: Tended) -> None:
    ours, theirs = tended.put("blobs/sha256/ab/.part-x"), tended.put("other/.part-x")
    os.utime(ours, (0, 0))
    os.utime(theirs, (0, 0))
    assert "blobs/sha256/ab/.part-x" in {item.key for item in tended.sweep().deleted}
    assert theirs.exists() and not ours.exists()


def test_folders_that_nobody_may_read_are_no_matter_when_they_are_not_ours(
    tended: Tended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `lost+found` of a file system, and `.Trash-0` of another user."""
    tended.put("lost+found/x")
    tended.put("channels/.Trash-0/x")
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name in ("lost+found", ".Trash-0"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert tended.sweep().foreign == ("lost+found/",)
    assert tended.store.channels.names() == ["production"]


def test_gc_tells_once_what_is_not_ours(tended: Tended) -> None:
    from memorag_pipeline.cli.app import app

    for key in ("channels/notes.txt", "x\x1b[2Jy", "versions/a\udcff"):
        tended.put(key)
    said = CliRunner().invoke(app, ["gc", str(tended.folder)])
    assert said.exit_code == 0, said.output
    (line,) = [line for line in said.output.replace("\n", " ").split("  ") if "not of the pipeline" in line]
    for name in ("channels/notes.txt", r"x\x1b[2Jy", r"versions/a\udcff"):
        assert line.count(name) == 1
    as_json = json.loads(CliRunner().invoke(app, ["gc", str(tended.folder), "--json"]).output)
    assert as_json["foreign"] == ["channels/notes.txt", r"versions/a\udcff", r"x\x1b[2Jy"]


def test_of_many_names_the_first_are_shown() -> None:
    assert foreign_text([f"{number:02d}" for number in range(25)]).endswith("18, 19 and 5 more")


def test_a_bucket_has_foreign_objects_too(s3_server: S3Server, s3_store: Root, tmp_path: Path) -> None:
    uri, options = s3_store
    store = CorpusStore(f"{uri}/kb/topics", options)
    store.versions.publish(manifest_of(store, documents=b"text"), "run")
    files = s3fs.S3FileSystem(**options)
    keys = [".DS_Store", "channels/notes.txt", "versions/8.json", "blobs/sha256/ab/x y", "other/x", "x y"]
    for key in keys:
        files.pipe_file(f"{uri}/kb/topics/{key}".removeprefix("s3://"), b"x")
    assert list(store.versions.numbers()) == [1]
    assert store.channels.targets() == {}
    report = swept.sweep(store, grace=timedelta(0))
    assert report.foreign == tuple(sorted({*keys, "other/"} - {"other/x"}))
