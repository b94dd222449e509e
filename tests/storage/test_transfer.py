"""A version moves between stores as a folder or a tar file, whole, compared with its digests, and nothing else does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError, StorageError, UntrustedReferenceError
from memorag_pipeline.storage import CorpusStore, Manifest
from memorag_pipeline.storage.packages.export import export_version
from memorag_pipeline.storage.packages.import_version import import_version
from memorag_pipeline.storage.packages.tar import TarWriter
from memorag_pipeline.storage.verify import verify
from tests.storage.conftest import manifest_of

FORMS = ["package", "package.tar"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def published(tmp_path: Path) -> CorpusStore:
    """A local store with two versions; the second has two blobs of the first."""
    store = CorpusStore(str(tmp_path / "published" / "topics"))
    store.versions.publish(manifest_of(store, documents=b"text", chunks=b"passages", index=b"vectors"), "run-1")
    store.versions.publish(manifest_of(store, documents=b"text", chunks=b"passages", index=b"others"), "run-2")
    return store


@pytest.mark.parametrize("form", FORMS)
def test_a_version_moves_to_any_store_and_back(
    store: CorpusStore, make_manifest: Callable[..., Manifest], tmp_path: Path, form: str
) -> None:
    manifest = make_manifest(documents=b"text", memory=os.urandom(5_000_000), same=b"text")
    store.versions.publish(manifest, "run-1")
    exported = export_version(store, 1, tmp_path / form)
    assert (exported.version, exported.blobs) == (1, 3)
    target = CorpusStore(str(tmp_path / "target" / "topics"))
    found = import_version(tmp_path / form, target, "import-1")
    assert (found.version, found.created, found.blobs) == (1, True, 2)
    assert target.versions.manifest(1) == store.versions.manifest(1)
    assert target.versions.record(1).run_id == "import-1"
    assert verify(target, 1, again=True) == []
    back = import_version(tmp_path / form, store, "import-2")
    assert (back.version, back.created, back.blobs) == (1, False, 0)


def test_a_folder_is_opened_in_place(published: CorpusStore, tmp_path: Path) -> None:
    export_version(published, 2, tmp_path / "package")
    opened = CorpusStore(str(tmp_path / "package"))
    assert list(opened.versions.numbers()) == [2]
    assert opened.versions.record(2) == published.versions.record(2)
    assert verify(opened, 2) == []


def test_equal_versions_are_equal_tars_that_tar_can_read(published: CorpusStore, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        export_version(published, 2, tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path / "extracted", filter="data")
    assert import_version(tmp_path / "extracted", published, "import-1").version == 2


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_already_is_not_written_again(published: CorpusStore, tmp_path: Path, form: str) -> None:
    """Version 1 is found although it is not the newest one, and of a new version only the new blobs are written."""
    export_version(published, 1, tmp_path / form)
    found = import_version(tmp_path / form, published, "import-1")
    assert (found.version, found.created, found.blobs) == (1, False, 0)

    target = CorpusStore(str(tmp_path / "target"))
    import_version(tmp_path / form, target, "import-1")
    export_version(published, 2, tmp_path / f"second-{form}")
    second = import_version(tmp_path / f"second-{form}", target, "import-2")
    assert (second.version, second.created, second.blobs, second.bytes) == (2, True, 1, len(b"others"))


def test_the_parent_is_the_one_of_the_target(published: CorpusStore, tmp_path: Path) -> None:
    target = CorpusStore(str(tmp_path / "target"))
    for number in range(3):
        target.versions.publish(manifest_of(target, documents=b"%d" % number), "run")
    export_version(published, 2, tmp_path / "package.tar")
    assert import_version(tmp_path / "package.tar", target, "import-1").version == 4
    assert target.versions.manifest(4).parent == 3
    assert target.versions.manifest(4).content_digest() == published.versions.manifest(2).content_digest()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", ["missing", "altered", "longer"])
def test_a_damaged_blob_is_not_exported(published: CorpusStore, tmp_path: Path, form: str, damage: str) -> None:
    key = published.versions.manifest(2).of_role("index")[0].ref.key
    published.objects.delete(key)
    if damage != "missing":
        published.objects.put(key, b"0thers" if damage == "altered" else b"others and more")
    with pytest.raises(
        CorruptBlobError, match=r"index/00000.bin of version 2.* (is missing|was altered|has more than)"
    ):
        export_version(published, 2, tmp_path / form)
    assert not (tmp_path / "package.tar").exists()
    assert list(tmp_path.glob(".part-*")) == []
    if form == "package":
        with pytest.raises(StorageError, match="holds none"):
            import_version(tmp_path / form, published, "import-1")


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_package_publishes_nothing(published: CorpusStore, tmp_path: Path, form: str) -> None:
    export_version(published, 2, tmp_path / form)
    blob = published.versions.manifest(2).of_role("index")[0]
    file = tmp_path / form if form.endswith(".tar") else tmp_path / form / blob.ref.key
    data = file.read_bytes()
    assert data.count(b"others") == 1
    file.write_bytes(data.replace(b"others", b"0thers"))
    target = CorpusStore(str(tmp_path / "target"))
    with pytest.raises(CorruptBlobError, match=r"index/00000.bin of version 2 in .*package.* was altered"):
        import_version(tmp_path / form, target, "import-1")
    assert target.versions.newest() is None
    assert not target.blobs.exists(blob.ref)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_blob_of_the_target_is_replaced(published: CorpusStore, tmp_path: Path, form: str) -> None:
    export_version(published, 2, tmp_path / form)
    for role, data in (("index", b"0thers"), ("chunks", b"pass")):
        published.objects.put(published.versions.manifest(2).of_role(role)[0].ref.key, data)
    found = import_version(tmp_path / form, published, "import-1")
    assert (found.version, found.created, found.blobs) == (2, False, 2)
    assert verify(published, 2, again=True) == []


def test_an_export_that_was_interrupted_goes_on(
    published: CorpusStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = published.versions.manifest(2).of_role("index")[0].ref.key
    published.objects.delete(key)
    with pytest.raises(CorruptBlobError):
        export_version(published, 2, tmp_path / "package")
    begun = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "package").rglob("*") if path.is_file()}
    assert begun
    published.objects.put(key, b"others")
    export_version(published, 2, tmp_path / "package")
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "package").rglob("*") if path.is_file()}
    assert begun.items() < done.items()
    assert import_version(tmp_path / "package", published, "import-1").version == 2


def test_what_is_there_is_not_overwritten(published: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    export_version(published, 1, tmp_path / "package")
    export_version(published, 1, tmp_path / "package.tar")
    for name in ("full", "file", "package", "package.tar"):
        with pytest.raises(StorageError, match=r"(holds something else|exists) already"):
            export_version(published, 2, tmp_path / name)


def test_what_is_no_package_is_told(published: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    (tmp_path / "text.tar").write_text("text" * 1000)
    (tmp_path / "empty").mkdir()
    for name, kind, words in (
        ("none.tar", NotFoundError, "there is no such file"),
        ("text.zip", NotFoundError, "neither a folder nor a .tar file"),
        ("text.tar", CorruptBlobError, "not a tar file"),
        ("empty", StorageError, "this folder holds none"),
    ):
        with pytest.raises(kind, match=words):
            import_version(tmp_path / name, published, "import-1")
    with pytest.raises(StorageError, match="holds 1, 2"):
        import_version(Path(published.uri.removeprefix("file://")), CorpusStore(str(tmp_path / "target")), "import-1")


def test_another_corpus_is_refused(published: CorpusStore, tmp_path: Path) -> None:
    target = CorpusStore(str(tmp_path / "target"))
    other = manifest_of(target, documents=b"text").model_copy(update={"corpus": "handbook"})
    target.versions.publish(other, "run-1")
    export_version(published, 1, tmp_path / "package")
    with pytest.raises(StorageError, match=r"holds versions of corpus 'handbook', and the package one of 'topics'"):
        import_version(tmp_path / "package", target, "import-1")


def test_models_by_path_or_url_need_trust(tmp_path: Path) -> None:
    store = CorpusStore(str(tmp_path / "published"))
    spec = {
        "memory": {"model": "/home/me/model", "adapter": "s3://elsewhere/adapter@1"},
        "embedding": {"model": "https://elsewhere/model", "revision": "../../x"},
    }
    store.versions.publish(manifest_of(store, documents=b"text").model_copy(update={"spec": spec}), "run-1")
    export_version(store, 1, tmp_path / "package.tar")
    target = CorpusStore(str(tmp_path / "target"))
    with pytest.raises(UntrustedReferenceError, match="import it with --trust-models") as caught:
        import_version(tmp_path / "package.tar", target, "import-1")
    for named in ("memory.model '/home/me/model'", "memory.adapter 's3", "embedding.model 'h", "revision '../../x'"):
        assert named in str(caught.value)
    assert list((tmp_path / "target").rglob("*")) == []
    assert import_version(tmp_path / "package.tar", target, "import-1", trust_models=True).created


def member(name: str, data: bytes = b"", **fields: Any) -> bytes:
    """One member of a tar, whatever it says of itself."""
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def members_of(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar) as opened:
        return [(item.name, opened.extractfile(item).read()) for item in opened]  # type: ignore[union-attr]


HOSTILE = {
    "an absolute path": lambda m: member("/etc/passwd", b"x"),
    "a way up": lambda m: member("../../escape", b"x"),
    "a way up below": lambda m: member(f"blobs/../../{m[2][0]}", m[2][1]),
    "a symbolic link": lambda m: member(m[2][0], type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": lambda m: member(m[2][0], type=tarfile.LNKTYPE, linkname=m[1][0]),
    "a device": lambda m: member(m[2][0], type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a pipe": lambda m: member(m[2][0], type=tarfile.FIFOTYPE),
    "a folder": lambda m: member("blobs", type=tarfile.DIRTYPE),
    "a sparse file": lambda m: member(m[2][0], type=tarfile.GNUTYPE_SPARSE),
    "an extension header of gigabytes": lambda m: member("x", type=tarfile.XHDTYPE, size=1 << 40),
    "a long name of gigabytes": lambda m: member("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 40),
    "a huge blob": lambda m: member(m[2][0], size=1 << 50),
    "another blob": lambda m: member(m[3][0], m[3][1]),
    "an extra file": lambda m: member("notes.txt", b"x"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", ["instead", "behind"])
def test_a_hostile_tar_is_refused_by_the_member_and_writes_nothing(
    published: CorpusStore, tmp_path: Path, kind: str, place: str
) -> None:
    """Anything in place of the first blob, or after the last one."""
    export_version(published, 2, tmp_path / "good.tar")
    members = members_of(tmp_path / "good.tar")
    evil = HOSTILE[kind](members)
    name = tarfile.TarInfo.frombuf(evil[:512], "utf-8", "strict").name
    plain = [member(key, data) for key, data in members]
    made = [*plain[:2], evil, *plain[3:]] if place == "instead" else [*plain, evil]
    target_folder = tmp_path / "target" / "deep" / "er"
    (tmp_path / "evil.tar").write_bytes(b"".join(made) + bytes(1024))
    with pytest.raises(CorruptBlobError, match=r"evil.tar: refused") as caught:
        import_version(tmp_path / "evil.tar", CorpusStore(str(target_folder)), "import-1")
    assert repr(name) in str(caught.value)
    assert not list(tmp_path.rglob("escape"))
    assert CorpusStore(str(target_folder)).versions.newest() is None
    written = [path for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert place == "behind" or written == []


def test_records_and_manifests_of_gigabytes_are_not_read(published: CorpusStore, tmp_path: Path) -> None:
    export_version(published, 2, tmp_path / "good.tar")
    members = members_of(tmp_path / "good.tar")
    huge = canonical_json(
        {**published.versions.record(2).model_dump(), "manifest": {"digest": "0" * 64, "size": 1 << 45}}
    )
    for data, words in (
        (member(members[0][0], size=1 << 45), "is not a commit record of at most"),
        (member(members[0][0], huge), "the manifest has 35184372088832 bytes by its record, too many"),
        (member(members[0][0], b"{}"), "is not a commit record"),
        (member(*members[1]), "is not a commit record"),
        (b"", "its end is not a commit record"),
    ):
        (tmp_path / "evil.tar").write_bytes(data + bytes(1024))
        with pytest.raises(CorruptBlobError, match=words):
            import_version(tmp_path / "evil.tar", published, "import-1")


def test_a_tar_that_was_cut_short_is_told(published: CorpusStore, tmp_path: Path) -> None:
    export_version(published, 2, tmp_path / "good.tar")
    data = (tmp_path / "good.tar").read_bytes()
    target = CorpusStore(str(tmp_path / "target"))
    for length in range(0, len(data) - 1024, 512):
        (tmp_path / "cut.tar").write_bytes(data[:length])
        with pytest.raises(CorruptBlobError, match=r"cut.tar: (refused, since its end|cut short within)"):
            import_version(tmp_path / "cut.tar", target, "import-1")
    assert target.versions.newest() is None


def test_links_out_of_a_folder_are_not_followed(published: CorpusStore, tmp_path: Path) -> None:
    export_version(published, 2, tmp_path / "package")
    file = tmp_path / "package" / published.versions.manifest(2).of_role("index")[0].ref.key
    (tmp_path / "secret").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError, match="leads out of the store"):
        import_version(tmp_path / "package", CorpusStore(str(tmp_path / "target")), "import-1")


def test_the_writer_pads_to_blocks() -> None:
    file = io.BytesIO()
    tar = TarWriter(file)
    tar.add("a", 3, iter([b"ab", b"c"]))
    tar.close()
    file.seek(0)
    with tarfile.open(fileobj=file) as opened:
        assert opened.extractfile("a").read() == b"abc"  # type: ignore[union-attr]


def test_memory_does_not_grow_with_the_version(tmp_path: Path) -> None:
    """A blob of 120 MB goes out and in with the address space of Python and a few pieces."""
    store = CorpusStore(str(tmp_path / "published"))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(120_000_000)
        file.write(b"begin")
    ref = store.blobs.put_file(large)
    manifest = manifest_of(store, documents=b"text")
    (blob,) = manifest.blobs
    large_blob = blob.model_copy(
        update={"role": "memory", "path": "memories/a", "digest": ref.digest, "size": ref.size}
    )
    store.versions.publish(manifest.model_copy(update={"blobs": (blob, large_blob)}), "run-1")
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from memorag_pipeline.storage import CorpusStore\n"
        "from memorag_pipeline.storage.packages.export import export_version\n"
        "from memorag_pipeline.storage.packages.import_version import import_version\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "export_version(CorpusStore(sys.argv[1]), 1, Path(sys.argv[2]))\n"
        "import_version(Path(sys.argv[2]), CorpusStore(sys.argv[3]), 'import-1')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    arguments = [str(tmp_path / name) for name in ("published", "package.tar", "target")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1 if sys.platform == "linux" else 1 / 1024) < 48_000  # KiB


def test_a_root_with_the_name_of_another_corpus_is_refused(published: CorpusStore, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from memorag_pipeline.cli.app import app

    export_version(published, 1, tmp_path / "package.tar")
    corpus = published.versions.manifest(1).corpus
    done = CliRunner().invoke(app, ["import", str(tmp_path / "package.tar"), str(tmp_path / "kb" / "other")])
    assert done.exit_code == 5
    assert f"the root of a corpus 'other', and the package holds one of {corpus!r}" in done.stderr
    assert not (tmp_path / "kb").exists()
    done = CliRunner().invoke(app, ["import", str(tmp_path / "package.tar"), str(tmp_path / "kb" / corpus)])
    assert done.exit_code == 0, done.output
