"""Every kind of file in a store, written by somebody hostile: it works, or one error of ours names the file.

Digests match: anyone who can write blobs can write a manifest and a commit record that name them.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memorag_pipeline import open_version
from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.parent_texts import ParentTexts
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.source_digest import published_digest
from memorag_pipeline.reports.overview import OverviewReader
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.diff import diff
from memorag_pipeline.storage.garbage.condemned import Condemned, CondemnedObject
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.intents import Intent
from memorag_pipeline.storage.packages.export import export_version
from memorag_pipeline.storage.packages.import_version import import_version
from memorag_pipeline.storage.verify import verify
from tests.fixtures.corpus import spec_of, write_topics

TABLES = ("inventory", "documents", "chunks", "quarantine", "shards", "sections", "segment_rows")
BINARY = (*TABLES, "embeddings", "index", "sparse_index", "memory")
HOSTILE = (None, True, -1, 10**30, 1.5, "", "\ud800", "\x00", "../../x", "9" * 5000, [], {}, [[]], {"x": {}}, [None])
NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**62, -(2**63))


@dataclass
class Attacked:
    """A store of one version, whose files are replaced one at a time and put back."""

    pipeline: Pipeline
    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path(f"versions/{1:020d}.json").read_bytes())
        return found

    @cached_property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(self.record["manifest"]["digest"]).read_bytes())
        return found

    def path(self, key: str) -> Path:
        return self.folder / key

    def blob(self, digest: str) -> Path:
        return self.path(f"blobs/sha256/{digest[:2]}/{digest}")

    def content(self, role: str) -> bytes:
        return self.blob(self._of(role)["digest"]).read_bytes()

    def _of(self, role: str) -> dict[str, Any]:
        return next(blob for blob in self.manifest["blobs"] if blob["role"] == role)

    def put(self, data: bytes) -> tuple[str, Path]:
        digest = bytes_digest(data)
        path = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest, path

    def put_manifest(self, data: bytes) -> None:
        """Let version 1 have this manifest."""
        digest, _ = self.put(data)
        record = self.record | {"manifest": {"digest": digest, "size": len(data)}}
        self.path(f"versions/{1:020d}.json").write_bytes(json.dumps(record).encode())

    def put_blob(self, role: str, data: bytes) -> None:
        """Let the first blob of a role have this content."""
        digest, _ = self.put(data)
        manifest = copy.deepcopy(self.manifest)
        named = next(blob for blob in manifest["blobs"] if blob["role"] == role)
        old, ref = (named["digest"], named["size"]), {"digest": digest, "size": len(data)}
        named.update(ref)
        for segment in manifest["index"]["segments"]:
            for name, value in segment.items():
                if isinstance(value, dict) and (value["digest"], value["size"]) == old:
                    segment[name] = ref
        self.put_manifest(json.dumps(manifest).encode())


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Any]) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMORAG_CACHE", str(folder / "cache"))
        source = write_topics(folder / "source", ("pass", "break", "lambda"))
        (source / "broken.rst").write_bytes(b"\x00\xff" * 50)
        sections = {**tiny_models, "retrieval": {"sparse": "bm25"}, "store": {"uri": str(folder / "store")}}
        pipeline = Pipeline(CorpusSpec.model_validate(spec_of(source, **sections).model_dump(mode="json")))
        refresh(pipeline, "run")
        pipeline.store.channels.promote("production", 1, by="test", why="good")
        found = Attacked(pipeline, folder / "store" / "topics")
        assert found.manifest and {blob["role"] for blob in found.manifest["blobs"]} >= {*BINARY, "units"}
        yield found


def uses(attacked: Attacked, scratch: Path) -> list[tuple[str, Callable[[], object]]]:
    """Whatever reads a store."""
    root = str(attacked.folder)

    def opened() -> Any:
        return open_version(root, trust_models=True)

    def search() -> None:
        version = opened()
        assert all(passage.shard_id for passage in version.search("what is a lambda", 3))
        version.searcher.search_vectors(np.ones((1, version.searcher._segments[0].dimensions), np.float32), 3)

    def texts() -> None:
        ParentTexts(opened().tables).parts_of_texts(["0" * 64, "f" * 64])

    def memories() -> None:
        version = opened()
        model = version.memories()._model
        for memory in version.memories().values():
            assert memory.slots == len(model.rotated(memory)[0])

    def parent() -> None:
        found = Parent(attacked.pipeline, 1)
        found.sections, found.shards, found.memories  # noqa: B018
        ids = [item.document_id for item in found.inventory]
        found.rows("documents", ids)
        found.source_digests(ids)
        published_digest(attacked.pipeline)
        KnownUnits(attacked.pipeline, found).find_all("embed", ["0" * 64])

    def packed() -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "package.tar").parent.mkdir(parents=True)
        export_version(CorpusStore(root), 1, scratch / "package.tar")
        import_version(scratch / "package.tar", CorpusStore(str(scratch / "other")), "run", trust_models=True)

    return [
        ("open", opened),
        ("channel", lambda: open_version(root, channel="production")),
        ("documents", lambda: list(opened().documents())),
        ("chunks", lambda: list(opened().chunks())),
        ("search", search),
        ("texts", texts),
        ("memories", memories),
        ("parent", parent),
        ("inventory", lambda: take_inventory(attacked.pipeline)),
        ("verify", lambda: verify(CorpusStore(root), 1, again=True)),
        ("sweep", lambda: sweep(CorpusStore(root), grace=timedelta(0), dry_run=True)),
        ("diff", lambda: diff(CorpusStore(root), 1, 1)),
        ("overview", lambda: OverviewReader(CorpusStore(root)).read()),
        ("status", lambda: StatusReader(CorpusStore(root)).read()),
        ("package", packed),
    ]


def require_ours(attacked: Attacked, scratch: Path, names: set[str] | None = None) -> set[str]:
    """Use the store in every way; errors are ours and name something of the store. Returns the uses that failed."""
    failed = set()
    for name, use in uses(attacked, scratch):
        if names is None or name in names:
            try:
                use()
            except MemoragError as error:
                failed.add(name)
                text = str(error)
                assert any(word in text for word in (str(attacked.folder), "version 1", "manifest", ".parquet")), text
    return failed


def changed_json(value: Any, choose: random.Random) -> Any:
    """`value` with one of its parts replaced, removed or added."""
    value = copy.deepcopy(value)
    holder, place = value, None
    while isinstance(holder, dict | list) and holder:
        place = choose.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not isinstance(holder[place], dict | list) or not holder[place] or choose.random() < 0.3:
            break
        holder = holder[place]
    if place is None:
        return choose.choice(HOSTILE)
    kind = choose.randrange(4)
    if kind == 0:
        del holder[place]
    elif kind == 1 and isinstance(holder, dict):
        holder["\x1b[2J"] = holder.pop(place)
    else:
        holder[place] = choose.choice(HOSTILE)
    return value


def changed_bytes(data: bytes, choose: random.Random) -> bytes:
    """`data` cut short, or with a number, some bytes or a bit replaced; most often near its ends, where headers are."""
    place = choose.choice([0, len(data) - 1, choose.randrange(len(data))])
    place = max(0, min(len(data) - 1, place + choose.randrange(-400, 400)))
    kind = choose.randrange(5)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + struct.pack("<q", choose.choice(NUMBERS)) + data[place + 8 :]
    if kind == 2:
        return data[:place] + struct.pack("<q", choose.choice(NUMBERS))[:4] + data[place + 4 :]
    if kind == 3:
        return data[:place] + bytes([data[place] ^ (1 << choose.randrange(8))]) + data[place + 1 :]
    return data[:place] + choose.randbytes(choose.randrange(1, 20)) + data[place:]


def changed_table(data: bytes, choose: random.Random) -> bytes:
    """The table with a column that is missing, of another type, or of other values."""
    table = pq.read_table(io.BytesIO(data))
    place = choose.randrange(table.num_columns)
    field, rows = table.schema.field(place), len(table)
    kind = choose.randrange(5)
    if kind == 0:
        table = table.drop_columns([field.name])
    elif kind == 1:
        table = table.set_column(place, field.name, pa.array([None] * rows, field.type))
    elif kind == 2:
        table = table.set_column(place, field.name, pa.array([choose.choice([1, "x", [1], 2.5])] * rows))
    elif kind == 3:
        table = table.slice(0, choose.randrange(rows + 1)) if rows else table
    elif pa.types.is_integer(field.type):
        bits = field.type.bit_width
        number = choose.choice([-1, 7, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))])
        table = table.set_column(place, field, pa.array([number] * rows, field.type))
    elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
        raw = pa.array([b"\xff\xfe"] * rows, pa.large_binary() if pa.types.is_large_string(field.type) else pa.binary())
        table = table.set_column(place, field, raw.view(field.type))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def records_of(attacked: Attacked) -> list[Path]:
    folders = ("versions", "channels", "units", "runs", "reports")
    return [path for folder in folders for path in sorted(attacked.path(folder).rglob("*.json"))]


FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SEEDS = st.integers(0, 2**32)
BY_ROLE = {
    "inventory": {"parent", "inventory"},
    "documents": {"documents", "parent"},
    "chunks": {"chunks", "search"},
    "quarantine": {"parent", "inventory"},
    "shards": {"parent"},
    "sections": {"parent", "search"},
    "segment_rows": {"search", "texts"},
    "embeddings": {"verify"},
    "index": {"search"},
    "sparse_index": {"search"},
    "memory": {"memories"},
    "units": {"parent", "status"},
}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "scratch"


def test_an_untouched_store_works_in_every_way(attacked: Attacked, scratch: Path) -> None:
    assert require_ours(attacked, scratch) == set()


@pytest.mark.parametrize("role", BINARY)
@FEW
@given(seed=SEEDS)
def test_blobs_of_every_role(attacked: Attacked, scratch: Path, role: str, seed: int) -> None:
    choose = random.Random(seed)
    change = changed_table if role in TABLES and choose.random() < 0.7 else changed_bytes
    record = attacked.path(f"versions/{1:020d}.json")
    before = record.read_bytes()
    try:
        attacked.put_blob(role, change(attacked.content(role), choose))
        require_ours(attacked, scratch, BY_ROLE[role])
    finally:
        record.write_bytes(before)


@pytest.mark.parametrize("role", ["manifest", "units"])
@settings(FEW, max_examples=1200)
@given(seed=SEEDS)
def test_json_blobs(attacked: Attacked, scratch: Path, role: str, seed: int) -> None:
    choose = random.Random(seed)
    record = attacked.path(f"versions/{1:020d}.json")
    before = record.read_bytes()
    content = json.dumps(attacked.manifest).encode() if role == "manifest" else attacked.content(role)
    if choose.random() < 0.8:
        content = json.dumps(changed_json(json.loads(content), choose)).encode()
    else:
        content = changed_bytes(content, choose)
    try:
        if role == "manifest":
            attacked.put_manifest(content)
            require_ours(attacked, scratch, None if choose.random() < 0.2 else {"open", "search", "parent", "verify"})
        else:
            attacked.put_blob(role, content)
            require_ours(attacked, scratch, BY_ROLE[role])
    finally:
        record.write_bytes(before)


@settings(FEW, max_examples=40)
@given(seed=SEEDS)
def test_records(attacked: Attacked, scratch: Path, seed: int) -> None:
    choose = random.Random(seed)
    path = choose.choice(records_of(attacked))
    before = path.read_bytes()
    content = before
    if choose.random() < 0.7:
        content = json.dumps(changed_json(json.loads(content), choose)).encode()
    else:
        content = changed_bytes(content, choose)
    try:
        path.write_bytes(content)
        require_ours(attacked, scratch, {"open", "channel", "sweep", "overview", "status"})
    finally:
        path.write_bytes(before)


HOUSEKEEPING = ("intents", "condemned", "deleting", "retired")


@pytest.fixture(scope="module")
def swept(attacked: Attacked, tmp_path_factory: pytest.TempPathFactory) -> CorpusStore:
    """A copy of the store with a version that is retired, a publish under way, condemnations, and a sweep under way."""
    folder = tmp_path_factory.mktemp("swept") / "topics"
    shutil.copytree(attacked.folder, folder)
    store = CorpusStore(str(folder))
    manifest = store.versions.manifest(1)
    again = manifest.model_copy(update={"counts": {**manifest.counts, "tokens": 1}})
    assert store.versions.publish(again, "run-2", base=1).version == 2
    store.versions.retire(2, "tests", "not needed")
    blob = manifest.blobs[0].ref
    store.intents.declare(Intent(write_id="a" * 32, run_id="run-3", blobs=(blob,), since="2026-01-01T00:00:00+00:00"))
    stored = store.objects.stat(blob.key)
    assert stored is not None
    condemned = CondemnedObject(key=blob.key, modified=stored.modified, why="of no version")
    Condemned(store.objects).add("b" * 32, [condemned], ["blobs/sha256/aa"])
    store.objects.put(f"deleting/{'c' * 32}.json", json.dumps({"keys": ["blobs/sha256/bb"]}).encode())
    return store


def uses_of_housekeeping(store: CorpusStore) -> dict[str, Callable[[], object]]:
    """Whatever reads the records of publishes and sweeps, by the folder of the records."""
    intent = Intent(write_id="d" * 32, run_id="run-4", blobs=(), since="2026-01-01T00:00:00+00:00")

    def declared() -> None:
        try:
            store.intents.declare(intent)
        finally:
            store.intents.withdraw(intent.write_id)

    def retired() -> None:
        OverviewReader(store).read()
        sweep(store, grace=timedelta(0), dry_run=True)
        store.versions.retained()
        open_version(store.uri, version=2)

    return {
        "intents": lambda: sweep(store, grace=timedelta(0), dry_run=True),
        "condemned": lambda: sweep(store, grace=timedelta(0), dry_run=True),
        "deleting": declared,
        "retired": retired,
    }


def test_records_of_publishes_and_sweeps_are_read(swept: CorpusStore, scratch: Path) -> None:
    uses = uses_of_housekeeping(swept)
    for folder in HOUSEKEEPING[:-1]:
        uses[folder]()
    with pytest.raises(MemoragError, match=r"version 2 .* was retired"):
        uses["retired"]()


@pytest.mark.parametrize("folder", HOUSEKEEPING)
@settings(FEW, max_examples=60)
@given(seed=SEEDS)
def test_altered_records_of_publishes_and_sweeps(swept: CorpusStore, scratch: Path, folder: str, seed: int) -> None:
    choose = random.Random(seed)
    (path,) = (Path(swept.uri.removeprefix("file://")) / folder).rglob("*.json")
    before = path.read_bytes()
    if choose.random() < 0.7:
        content = json.dumps(changed_json(json.loads(before), choose)).encode()
    else:
        content = changed_bytes(before, choose)
    try:
        path.write_bytes(content)
        uses_of_housekeeping(swept)[folder]()
    except MemoragError as error:
        assert path.name in str(error) or "version 2" in str(error), error
        "\n".join(str(error).split()).encode()
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("folder", HOUSEKEEPING)
def test_records_of_publishes_and_sweeps_that_are_none_are_named(
    swept: CorpusStore, scratch: Path, folder: str
) -> None:
    (path,) = (Path(swept.uri.removeprefix("file://")) / folder).rglob("*.json")
    before = path.read_bytes()
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version": "\\ud800"}'):
        try:
            path.write_bytes(content)
            with pytest.raises(MemoragError, match=path.name):
                uses_of_housekeeping(swept)[folder]()
        finally:
            path.write_bytes(before)


def test_what_is_hostile_is_refused_and_not_just_survived(attacked: Attacked, scratch: Path) -> None:
    """Each of these opened, or raised an error that was not ours."""
    record = attacked.path(f"versions/{1:020d}.json")
    before = record.read_bytes()

    def manifest(**values: Any) -> None:
        attacked.put_manifest(json.dumps(attacked.manifest | values).encode())

    others = [blob for blob in attacked.manifest["blobs"] if blob["role"] != "index"]
    embedding = [model for model in attacked.manifest["models"] if model["role"] != "embedding"]
    attacks: list[tuple[str, Callable[[], None]]] = [
        ("open", lambda: attacked.put_manifest(b"[]")),
        ("open", lambda: manifest(format={})),
        ("open", lambda: manifest(counts={"documents": "many"})),
        ("open", lambda: manifest(corpus="\ud800")),
        ("open", lambda: record.write_bytes(json.dumps(attacked.record | {"version": 7}).encode()) and None),
        ("search", lambda: manifest(blobs=others)),
        ("search", lambda: manifest(models=embedding)),
        ("search", lambda: manifest(spec={})),
        ("memories", lambda: manifest(spec=attacked.manifest["spec"] | {"memory": []})),
        ("memories", lambda: manifest(language="xx")),
    ]
    for use, attack in attacks:
        try:
            attack()
            assert use in require_ours(attacked, scratch, {use})
        finally:
            record.write_bytes(before)
