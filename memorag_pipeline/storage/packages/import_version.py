"""Importing a version from a package into a store, where it becomes the next version.

In:  the path of a folder or of a file `….tar` that `export_version` made; a corpus store.
Out: the version's number there; that of a version which holds the same already.
Wrong: a package that is not exactly what an export writes, or whose blobs are altered: `CorruptBlobError`, and no
       version is published. A manifest with models by path or URL: `UntrustedReferenceError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from memorag_pipeline.errors import CorruptBlobError, NotFoundError, StorageError
from memorag_pipeline.machine.threads import BLOBS
from memorag_pipeline.storage.blobs import LARGEST_JSON, BlobRef, parsed_json
from memorag_pipeline.storage.manifest import Manifest, parse_manifest
from memorag_pipeline.storage.model_references import require_known_references
from memorag_pipeline.storage.packages.export import named_blobs
from memorag_pipeline.storage.packages.tar import TarReader, is_tar
from memorag_pipeline.storage.packages.transfer import Pieces, bring_blobs, checked, stored_pieces
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.versions import CommitRecord


@dataclass(frozen=True)
class Imported:
    """The version of the target that holds what the package does; `created` tells whether this import made it.

    `blobs` were written, the others of the package were there already; `bytes` is the size of those written.
    """

    version: int
    created: bool
    uri: str
    blobs: int
    bytes: int


@dataclass(frozen=True)
class _Package:
    record: CommitRecord
    manifest: Manifest
    pieces: Pieces
    reader: TarReader | None = None


def import_version(
    source: Path, target: CorpusStore, run_id: str, trust_models: bool = False, corpus: str | None = None
) -> Imported:
    """Publish in `target` what the package at `source` holds; blobs that are there already are not written again.

    `trust_models`: the manifest may name models by local path or URL. `corpus`: the name that the version's corpus must
    have, if `target` holds none yet.
    """
    with _opened(source) as package:
        manifest = package.manifest
        if not trust_models:
            require_known_references(manifest, str(source), "import it with --trust-models")
        _require_same_corpus(target, manifest, corpus)
        blobs = named_blobs(package.record, manifest)[1:]
        written = bring_blobs(target, blobs, package.pieces, in_order=package.reader is not None)
        if package.reader is not None:
            package.reader.require_end()
    size = sum(ref.size for ref in written)
    same = _version_with(target, manifest.content_digest())
    if same is not None:
        return Imported(same, False, target.uri, len(written), size)
    published = target.versions.publish(manifest.model_copy(update={"parent": None}), run_id)
    return Imported(published.version, published.created, target.uri, len(written), size)


@contextmanager
def _opened(source: Path) -> Iterator[_Package]:
    if not source.exists():
        raise NotFoundError(f"{source}: there is no such file or folder; give what `memorag export` wrote")
    if source.is_dir():
        yield _folder(source)
    elif is_tar(source):
        with source.open("rb") as file:
            yield _tar(TarReader(file, str(source)), str(source))
    else:
        raise NotFoundError(f"{source}: neither a folder nor a .tar file; give what `memorag export` wrote")


def _folder(source: Path) -> _Package:
    store = CorpusStore(str(source))
    numbers = list(store.versions.numbers())
    if len(numbers) != 1:
        held = ", ".join(map(str, numbers)) or "none"
        raise StorageError(f"{source}: a package holds one version, this folder holds {held}; export the version again")
    return _Package(store.versions.record(numbers[0]), store.versions.manifest(numbers[0]), stored_pieces(store))


def _tar(reader: TarReader, name: str) -> _Package:
    key, data = reader.record()
    try:
        record = CommitRecord.model_validate_json(data)
    except ValidationError as error:
        raise CorruptBlobError(f"{name}: its {key} is not a commit record; export the version again") from error

    def pieces(ref: BlobRef, what: str) -> Iterator[bytes]:
        return checked(reader.member(ref.key, ref.size), ref, f"{what} in {name}")

    if record.manifest.size > LARGEST_JSON:
        raise CorruptBlobError(f"{name}: the manifest has {record.manifest.size} bytes by its record, too many")
    data = b"".join(pieces(record.manifest, "manifest"))
    try:
        values = parsed_json(data)
    except ValueError as error:
        raise CorruptBlobError(f"{name}: its manifest is not JSON ({error}); export the version again") from error
    manifest = parse_manifest(values, name, "import it with the release that exported it")
    return _Package(record, manifest, pieces, reader)


def _require_same_corpus(target: CorpusStore, manifest: Manifest, named: str | None) -> None:
    if named not in (None, manifest.corpus):
        raise StorageError(
            f"{target.uri} is the root of a corpus {named!r}, and the package holds one of {manifest.corpus!r}, which"
            f" specs and DAGs would look for elsewhere; import it into …/{manifest.corpus}"
        )
    newest = target.versions.newest()
    corpus = manifest.corpus if newest is None else target.versions.manifest(newest).corpus
    if corpus != manifest.corpus:
        raise StorageError(
            f"{target.uri} holds versions of corpus {corpus!r}, and the package one of {manifest.corpus!r}; import it"
            " into a root of its own"
        )


def _version_with(target: CorpusStore, content_digest: str) -> int | None:
    """The newest version that holds the same and can be opened."""

    def holds(number: int) -> bool:
        try:
            return target.versions.manifest(number).content_digest() == content_digest
        except (StorageError, NotFoundError):
            return False

    numbers = sorted(target.versions.retained(), reverse=True)
    with ThreadPoolExecutor(BLOBS) as pool:
        return next((number for number, same in zip(numbers, pool.map(holds, numbers), strict=True) if same), None)
