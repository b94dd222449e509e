"""Speed of ingestion: extraction with chunking, the listing of a bucket, and a night in which nothing changed.

| row       | measured                                          | against                                     |
|-----------|---------------------------------------------------|---------------------------------------------|
| part      | CPU seconds of what extraction cannot do without: |                                             |
|           | start, reading, each tokenizer once, writing      |                                             |
| extract   | CPU seconds of the stage, 1 process               | the sum of its parts: to reach 0.8 of it;   |
|           |                                                   | the same with counting by pieces once in    |
|           |                                                   | place of the tokenizers                     |
| extract   | MB per CPU second                                 | to reach 1                                  |
| extract   | seconds of a task on 2 cores, with 2 processes    | on 1 core, with 1: to reach 1.8 times       |
| extract   | growth of memory over all documents, both         | over half of them: to reach 1.1             |
|           | processes of the stage together                   |                                             |
| list      | seconds and memory of listing a bucket            | fsspec's `find` alone                       |
| unchanged | seconds and memory of a refresh of that bucket    | the listing                                 |
|           | when nothing changed                              |                                             |

The documents are the topics of Python's own documentation, as reStructuredText and as HTML, and after them the
reference of installed packages, a page for each module, up to `--mb`; or the files of a folder. Parts are measured by
the libraries themselves, each tokenizer by its own `encode_batch`. The bucket is on a real S3 server on loopback,
filled with small texts; listings and nights run in turn with what they are compared with, medians of three. Run on an
idle machine: python -m benchmarks.ingest
"""

from __future__ import annotations

import argparse
import ast
import html
import io
import multiprocessing
import os
import resource
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
from tokenizers import Tokenizer

from benchmarks.figures import Report
from benchmarks.timing import device_name, peak_growth
from memorag_pipeline import schemas
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.corpus.text import read_text
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.models.tokens import TokenCounter, token_counter
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.extraction import STAGE, Extraction
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.known_units import unit_rows
from memorag_pipeline.refresh.plans import ExtractList, InventoryPlan
from memorag_pipeline.refresh.publish import manifest_of
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef, ManifestBlob, Outcome
from tests.fixtures.s3 import run_s3_server

ROWS = ("extract", "list", "unchanged")
MB = 1e6
RUNS = 3
_AT_ONCE = 500  # objects
_TEXTS_AT_ONCE = 64


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.ingest"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--folder", type=Path, help="documents to extract, in place of Python's and packages'")
    parser.add_argument("--mb", type=float, default=12, help="of documents to extract")
    parser.add_argument("--objects", type=int, default=100_000, help="in the bucket")
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    report = Report("ingest", {"device": device_name(), "cores": os.cpu_count()}, given.append)
    with tempfile.TemporaryDirectory(prefix="memorag-ingest-") as temporary:
        if "extract" in given.only:
            measure_extraction(
                given.folder or _pages(Path(temporary) / "pages", given.mb * MB), Path(temporary), report
            )
        if {"list", "unchanged"} & set(given.only):
            with run_s3_server(_new(Path(temporary) / "s3")) as server:
                bucket, options = server.new_bucket(), server.options()
                _fill(bucket, options, given.objects)
                place = {"uris": [f"s3://{bucket}/documents"], "storage_options": options}
                if "list" in given.only:
                    measure_listing(place, given.objects, report)
                if "unchanged" in given.only:
                    store = {"uri": f"s3://{bucket}/store", "storage_options": options}
                    measure_unchanged(place, store, given.objects, report)


def measure_extraction(folder: Path, temporary: Path, report: Report) -> None:
    """The stage on one and two processes, beside its parts alone."""
    documents = [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(len(data) for _, data in documents) / MB
    half = _half(folder, _new(temporary / "half"))

    def staged(name: str, source: Path, processes: int, cores: int) -> tuple[Staged, Pipeline, str]:
        store = {"uri": str(temporary / name)}
        compute = {"units_per_task": 1 << 20, "extract_processes": processes}
        pipeline = Pipeline(_spec({"uris": [str(source)]}, store, compute))
        (batch,) = take_inventory(pipeline)["extract"]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_extract, pipeline.spec.model_dump_json(), batch, cores).result(), pipeline, batch

    one, done, batch = staged("one", folder, 1, 1)
    parts = _parts(documents, done, batch)
    for name, cpu in parts.items():
        _add(report, "part", name, {"cpu_seconds": cpu, "mb_per_cpu_second": size / cpu})
    by_pieces = sum(cpu for name, cpu in parts.items() if "tokenizer" not in name)
    bound = sum(cpu for name, cpu in parts.items() if "pieces" not in name)
    common = {"documents": len(documents), "mb": size}

    def add(name: str, found: Staged, **values: float) -> None:
        taken = {"seconds": found.seconds, "cpu_seconds": found.cpu, "mb_per_cpu_second": size / found.cpu}
        _add(report, "extract", name, {**common, **taken, "mib": found.memory / 2**20, **values})

    lesser, *_ = staged("half", half, 1, 1)
    more = {"mib_of_half": lesser.memory / 2**20, "times_memory_of_half": one.memory / lesser.memory}
    add("1 process, 1 core", one, of_bound=bound / one.cpu, of_bound_by_pieces=by_pieces / one.cpu, **more)
    for name, processes in (("1 process, 2 cores", 1), ("2 processes, 2 cores", 2)):
        found, *_ = staged(f"{processes}-of-2", folder, processes, 2)
        add(name, found, times_1_core=one.seconds / found.seconds)


def _half(folder: Path, half: Path) -> Path:
    """A folder with every second document of another."""
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        if number % 2:
            (half / f"{number}-{path.name}").write_bytes(path.read_bytes())
    return half


def _parts(documents: Sequence[tuple[str, bytes]], done: Pipeline, batch: str) -> dict[str, float]:
    """CPU seconds of each part of extraction by itself; `done` has extracted the documents."""
    extraction, blobs = Extraction.of(done), done.store.blobs
    texts: list[str] = []

    def start() -> None:
        with extraction.reader() as reader:
            reader.document("id", "file:///a.txt", b"text")

    def read() -> None:
        texts.extend(read_text(name, data, "en", Parser(), 1 << 30).text for name, data in documents)

    def tokenize(tokenizer: Tokenizer) -> None:
        for at in range(0, len(texts), _TEXTS_AT_ONCE):
            tokenizer.encode_batch(texts[at : at + _TEXTS_AT_ONCE], add_special_tokens=False)

    def write() -> None:
        for rows, schema in tables:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), io.BytesIO(), compression="zstd")

    read()  # what it imports is in the start
    texts.clear()
    found = {"start": _taken(start), "reading": _taken(read)}
    for role, model in (("embedding", extraction.embedding), ("memory", extraction.memory)):
        found[f"tokenizer, {role}"] = _taken(partial(tokenize, token_counter(model).tokenizer))
        found[f"pieces, {role}"] = _taken(partial(TokenCounter(model).counts, texts))
    fingerprints = [part.fingerprint for part in done.read_work(batch, ExtractList).units]
    outcomes = [outcome for outcome in done.store.units.find_all(STAGE, fingerprints) if outcome is not None]
    blobs_of = [blob for outcome in outcomes for blob in outcome.blobs.items()]
    tables = [
        (blobs.cached_table(ref, None, role, schemas.OF_ROLE[role]).to_pylist(), schemas.OF_ROLE[role])
        for role, ref in blobs_of
    ]
    found["writing"] = _taken(write)
    return found


def _taken(call: Callable[[], object]) -> float:
    """CPU seconds of this process and of those that it has started and ended."""
    before = os.times()
    call()
    return sum(os.times()[:4]) - sum(before[:4])


@dataclass(frozen=True)
class Staged:
    """What the stage took, with the start of its reading processes: seconds, CPU seconds, bytes of memory at most."""

    seconds: float
    cpu: float
    memory: int


def _extract(spec: str, batch: str, cores: int) -> Staged:
    """The stage in this process, on that many cores."""
    pipeline = Pipeline(CorpusSpec.model_validate_json(spec))
    Extraction.of(pipeline).reader().close()  # imports, and digests of the models, which the task before has found
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    before, memory, started = os.times(), _grown(), time.perf_counter()
    extract(pipeline, batch)
    seconds, after = time.perf_counter() - started, os.times()
    return Staged(seconds, sum(after[:4]) - sum(before[:4]), _grown() - memory)


def _grown() -> int:
    """The most memory that this process and the largest that it has started had."""
    return 1024 * sum(resource.getrusage(each).ru_maxrss for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure_listing(place: dict[str, Any], objects: int, report: Report) -> None:
    """Listing a bucket, compared with fsspec alone; memory of each in a separate process that has listed nothing
    before."""
    filesystem = s3fs.S3FileSystem(**place["storage_options"], skip_instance_cache=True, use_listings_cache=False)
    spec = _spec(place, {"uri": "memory://benchmark"}, {})
    source = Source(spec.source)
    source.first_page()
    filesystem.ls(place["uris"][0].rpartition("/")[0])  # connections are made
    listed, found = _in_turn(
        lambda: _expect(len(source.list()), objects), lambda: filesystem.find(place["uris"][0], detail=True)
    )
    memory = [_alone(call, spec.model_dump_json()) / 2**20 for call in (_memory_of_list, _memory_of_find)]
    values = {"seconds": listed[0], "cpu_seconds": listed[1], "bare_seconds": found[0], "bare_cpu_seconds": found[1]}
    _add(report, "list", f"{objects:,} objects", {**values, "mib": memory[0], "bare_mib": memory[1]})


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    started = time.perf_counter()
    cpu = _taken(call)
    return time.perf_counter() - started, cpu


def _in_turn(*calls: Callable[[], object]) -> list[tuple[float, float]]:
    """Medians of seconds, and of CPU seconds of this process, of calls that run in turn."""
    taken = [[_timed(call) for call in calls] for _ in range(RUNS)]
    return [(median(run[0] for run in runs), median(run[1] for run in runs)) for runs in zip(*taken, strict=True)]


def _expect(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{found:,} objects were listed, not {expected:,}")


def _alone(call: Callable[[str], int], spec: str) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, spec).result()


def _memory_of_list(spec: str) -> int:
    return peak_growth(Source(CorpusSpec.model_validate_json(spec).source).list)


def _memory_of_find(spec: str) -> int:
    source = CorpusSpec.model_validate_json(spec).source
    filesystem = s3fs.S3FileSystem(**source.storage_options)
    return peak_growth(lambda: filesystem.find(source.uris[0], detail=True))


def _memory_of_night(spec: str) -> int:
    return peak_growth(lambda: take_inventory(Pipeline(CorpusSpec.model_validate_json(spec))))


def measure_unchanged(place: dict[str, Any], store: dict[str, Any], objects: int, report: Report) -> None:
    """A refresh that finds nothing to do, beside the listing. The version before has all lists of a real one, and parts
    of a few bytes, which such a refresh does not read; extraction would take minutes."""
    pipeline = Pipeline(_spec(place, store, {"units_per_task": 1 << 20}))
    _publish(pipeline)

    def night() -> None:
        found = take_inventory(Pipeline(pipeline.spec))
        _expect(found["counts"]["unchanged"], objects)
        if found["changed"] or found["extract"]:
            raise RuntimeError("the refresh found a change where there is none")

    source = Source(pipeline.spec.source)
    night()  # imports, digests of model files
    taken, listed = _in_turn(night, source.list)
    memory = _alone(_memory_of_night, pipeline.spec.model_dump_json()) / 2**20
    values = {"seconds": taken[0], "cpu_seconds": taken[1], "list_seconds": listed[0], "list_cpu_seconds": listed[1]}
    _add(report, "unchanged", f"{objects:,} objects", {**values, "mib": memory})


def _publish(pipeline: Pipeline) -> None:
    """A version of the source whose parts and embeddings are made up."""
    plan, spec = pipeline.read_work(take_inventory(pipeline)["plan"], InventoryPlan), pipeline.settled
    blobs, counts = (
        pipeline.store.blobs,
        {"documents": 16, "chunks": 16, "tokens": 80, "quarantined": 0, "unsettled": 0},
    )

    def stored(role: str) -> list[BlobRef]:
        return in_threads(lambda part: blobs.put_bytes(f"{role} of {part}".encode()), plan.parts)

    roles = {role: stored(role) for role in ("documents", "chunks", "embeddings")}
    tables = zip(plan.parts, roles["documents"], roles["chunks"], strict=True)
    outcomes = [
        Outcome(stage=STAGE, fingerprint=part, blobs={"documents": documents, "chunks": chunks}, counts=counts)
        for part, documents, chunks in tables
    ]
    named = [
        ("inventory", "inventory.parquet", plan.inventory),
        ("units", "units.json", blobs.put_json(unit_rows(outcomes))),
    ]
    named += [
        (role, f"{role}/{number:05d}.parquet", ref) for role, refs in roles.items() for number, ref in enumerate(refs)
    ]
    made = (ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size) for role, path, ref in named)
    pipeline.store.versions.publish(manifest_of(spec, plan, made, {}), "benchmark")


def _spec(source: dict[str, Any], store: dict[str, Any], compute: dict[str, Any]) -> CorpusSpec:
    return CorpusSpec.model_validate(
        {
            "corpus": "benchmark",
            "source": source,
            "store": store,
            "memory": {"kind": "full", "model": "package:smollm2-135m-instruct"},
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            "compute": compute,
        }
    )


def _pages(folder: Path, size: float) -> Path:
    """Pages of about so many bytes: Python's topics in two formats, then the reference of installed packages."""
    _new(folder)
    for name, text in topics.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
        paragraphs = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.split("\n\n"))
        (folder / f"{name}.html").write_text(f"<!DOCTYPE html><html><body>{paragraphs}</body></html>", encoding="utf-8")
    written = sum(path.stat().st_size for path in folder.iterdir())
    for number, (name, page) in enumerate(_reference()):
        if written >= size:
            break
        (folder / f"{name}{'.md' if number % 2 else '.rst'}").write_text(page, encoding="utf-8", errors="replace")
        written += len(page)
    return folder


def _reference() -> Iterator[tuple[str, str]]:
    """A page for each module of Python and of some packages, with all that its docstrings say."""
    packages = [Path(sysconfig.get_path("purelib"), name) for name in ("numpy", "scipy", "sklearn", "pandas", "torch")]
    for root in (Path(sysconfig.get_path("stdlib")), *packages):
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if {"site-packages", "test", "tests"} & set(inside.parts):
                continue
            with suppress(SyntaxError, ValueError):  # some are there to be refused
                module = ast.parse(path.read_bytes())
                name = ".".join((root.name, *inside.with_suffix("").parts))
                if page := "\n".join(_sections(module, name)):
                    yield name, page


def _sections(module: ast.Module, name: str) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            title = name if isinstance(node, ast.Module) else node.name
            yield f"{title}\n{'=-'[title != name] * len(title)}\n\n{text}\n"


def _fill(bucket: str, options: dict[str, Any], objects: int) -> None:
    filesystem = s3fs.S3FileSystem(**options)
    started = time.perf_counter()
    for start in range(0, objects, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, objects))
        filesystem.pipe(
            {
                f"{bucket}/documents/{i // 1000:03d}/{i:06d}.txt": f"The document with number {i}.\n".encode()
                for i in numbers
            }
        )
    print(f"{objects:,} objects written in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _add(report: Report, row: str, what: str, values: dict[str, float]) -> None:
    report.write({"benchmark": "ingest", "row": row, "what": what, **{k: round(v, 4) for k, v in values.items()}})
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
    print(f"{row:<10} {what:<18} {shown}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
