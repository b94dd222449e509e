"""Speed of ingestion: extraction with chunking, the listing of a bucket, and a night in which nothing changed.

| row       | measured                                          | against                                     |
|-----------|---------------------------------------------------|---------------------------------------------|
| extract   | MB/s and documents/s of the stage, 1 process      | the embedding model's tokenizer alone       |
| extract   | the same                                          | reading the same documents, without chunks  |
| extract   | the same, 2 processes on a half each              | 1 process                                   |
| list      | seconds and memory of listing a bucket            | fsspec's `find` alone, which it calls       |
| unchanged | seconds and memory of a refresh of that bucket    | the listing                                 |
|           | when nothing changed                              |                                             |

The documents are the topics of Python's own documentation, as reStructuredText and as HTML, or the files of a folder.
The bucket is on a real S3 server on loopback, filled with small texts. Run on an idle machine:
python -m benchmarks.ingest
"""

from __future__ import annotations

import argparse
import html
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import s3fs

from benchmarks.figures import Report
from benchmarks.timing import device_name, peak_growth, seconds_of
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.corpus.text import read_text
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.extraction import STAGE, Extraction
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.known_units import KnownUnits, unit_rows
from memorag_pipeline.refresh.plans import ExtractList
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.s3 import run_s3_server
from tests.refresh.conftest import refresh

ROWS = ("extract", "list", "unchanged")
MB = 1e6
_AT_ONCE = 500  # objects


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.ingest"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--folder", type=Path, help="documents to extract, in place of Python's topics")
    parser.add_argument("--objects", type=int, default=100_000, help="in the bucket")
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    report = Report("ingest", {"device": device_name(), "cores": os.cpu_count()}, given.append)
    with tempfile.TemporaryDirectory(prefix="memorag-ingest-") as temporary:
        if "extract" in given.only:
            measure_extraction(given.folder or _topics(Path(temporary) / "topics"), Path(temporary), report)
        if {"list", "unchanged"} & set(given.only):
            with run_s3_server(_new(Path(temporary) / "s3")) as server:
                bucket, options = server.new_bucket(), server.options()
                _fill(bucket, options, given.objects)
                place = {"uris": [f"s3://{bucket}/documents"], "storage_options": options}
                listed = measure_listing(place, given.objects, report)
                if "unchanged" in given.only:
                    store = {"uri": f"s3://{bucket}/store", "storage_options": options}
                    measure_unchanged(place, store, given.objects, listed, report)


def measure_extraction(folder: Path, temporary: Path, report: Report) -> None:
    """The stage on one and two processes, beside its parts alone."""

    def pipeline(name: str, parts: int) -> Pipeline:
        compute = {"units_per_task": parts}
        return Pipeline(
            _spec({"uris": [str(folder)], "documents_per_part": 8}, {"uri": str(temporary / name)}, compute)
        )

    one = pipeline("one", 1 << 20)
    counter = token_counter(Extraction.of(one).embedding)
    documents = [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(len(data) for _, data in documents)
    texts: list[str] = []

    def read() -> None:
        texts.extend(read_text(name, data, "en", Parser(), 1 << 30).text for name, data in documents)

    read()
    counter.count("warm")
    texts.clear()
    taken = {"bare extraction": _taken(read), "bare tokenizer": _taken(lambda: counter.counts(texts))}
    taken["1 process"] = _staged(one, 1)
    parts = sum(
        len(one.read_work(uri, ExtractList).units) for uri in take_inventory(pipeline("count", 1 << 20))["extract"]
    )
    taken["2 processes"] = _staged(pipeline("two", -(-parts // 2)), 2)
    for name, (seconds, cpu) in taken.items():
        speed = {"mb_per_second": size / MB / seconds, "documents_per_second": len(documents) / seconds}
        speed |= {"seconds": seconds, "cpu_seconds": cpu}
        _add(report, "extract", name, {"documents": len(documents), "mb": size / MB, **speed})


def _taken(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process and of those that it has started and ended."""
    before, started = os.times(), time.perf_counter()
    call()
    after = os.times()
    return time.perf_counter() - started, sum(after[:4]) - sum(before[:4])


def _staged(pipeline: Pipeline, processes: int) -> tuple[float, float]:
    """The time of the stage extract over work lists in `processes` processes, without their start."""
    batches = take_inventory(pipeline)["extract"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(_warm_up, [pipeline.spec.model_dump_json()] * processes))
        started = time.perf_counter()
        cpu = list(pool.map(_extract, [pipeline.spec.model_dump_json()] * len(batches), batches))
        return time.perf_counter() - started, sum(cpu)


def _warm_up(spec: str) -> None:
    """Import and read what a worker has read once it has done its first task."""
    Extraction.of(Pipeline(CorpusSpec.model_validate_json(spec))).reader()
    time.sleep(1)  # so that each process gets one of these calls


def _extract(spec: str, batch: str) -> float:
    return _taken(lambda: extract(Pipeline(CorpusSpec.model_validate_json(spec)), batch))[1]


def measure_listing(place: dict[str, Any], objects: int, report: Report) -> float:
    """Listing a bucket, compared with fsspec alone; memory of each in a separate process that has listed nothing
    before."""
    filesystem = s3fs.S3FileSystem(**place["storage_options"], skip_instance_cache=True, use_listings_cache=False)
    spec = _spec(place, {"uri": "memory://benchmark"}, {})
    source = Source(spec.source)
    filesystem.ls(place["uris"][0].rpartition("/")[0])  # connections are made
    bare = seconds_of(lambda: filesystem.find(place["uris"][0], detail=True))
    taken = seconds_of(lambda: _expect(len(source.list()), objects))
    memory = [_alone(call, spec.model_dump_json()) / 2**20 for call in (_memory_of_list, _memory_of_find)]
    values = {"seconds": taken, "bare_seconds": bare, "mib": memory[0], "bare_mib": memory[1]}
    _add(report, "list", f"{objects:,} objects", values)
    return taken


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


def measure_unchanged(
    place: dict[str, Any], store: dict[str, Any], objects: int, listed: float, report: Report
) -> None:
    """A refresh that finds nothing to do, after a version that has documents and chunks; memories would take hours."""
    pipeline = Pipeline(_spec(place, store, {"units_per_task": 1 << 20}))

    def publish() -> None:
        made = refresh(pipeline)
        outcomes = KnownUnits(pipeline, None).find_all(STAGE, made.plan["parts"])
        made.publish(units=unit_rows(filter(None, outcomes)))

    first = seconds_of(publish)

    def night() -> None:
        found = take_inventory(Pipeline(pipeline.spec))
        _expect(found["counts"]["unchanged"], objects)
        if found["changed"]:
            raise RuntimeError("the refresh found a change where there is none")

    taken = seconds_of(night)
    memory = _alone(_memory_of_night, pipeline.spec.model_dump_json()) / 2**20
    record = {"seconds": taken, "listing_seconds": listed, "first_seconds": first, "mib": memory}
    _add(report, "unchanged", f"{objects:,} objects", record)


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


def _topics(folder: Path) -> Path:
    _new(folder)
    for name, text in topics.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
        paragraphs = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.split("\n\n"))
        (folder / f"{name}.html").write_text(f"<!DOCTYPE html><html><body>{paragraphs}</body></html>", encoding="utf-8")
    return folder


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
