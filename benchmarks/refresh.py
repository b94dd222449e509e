"""What a refresh costs against what changed: a documentation site on three days, each against a full rebuild.

All stages run as they are, over two buckets of a SeaweedFS that is started for it. By default both models are of random
numbers and one layer, under the tokenizers of SmolLM2 and all-MiniLM-L6-v2: documents, chunks, shards, windows, what is
reused and what is read are those of the real models, and only the reading itself is cheap. `--model` and `--embedding`
name real ones. Each run begins with an empty cache, as on a new worker.

    python -m benchmarks.refresh --append benchmarks/results/DEVICE.jsonl
    python -m benchmarks.refresh --documents 20 --model package:smollm2-135m-instruct

Tokens changed are those of documents that are new or have another text; `in lines` counts only lines that a comparison
with the day before finds new. Bytes are counted by a proxy, HTTP included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import s3fs
import torch

from benchmarks.figures import Figure, Report
from benchmarks.knowledge_base import DAYS, FOLDER, Documents, Site, read_days
from benchmarks.meter import forget_blobs, own_cache
from benchmarks.timing import device_name
from benchmarks.tiny_models import tiny_embedding_model, tiny_memory_model
from benchmarks.traffic import Traffic, counted
from memorag_pipeline.memory.format import MemoryHeader, read_header
from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.plans import MemorizeList
from memorag_pipeline.refresh.stages import REFRESH
from memorag_pipeline.runner import RefreshResult, refresh
from memorag_pipeline.runs.tasks import read_reports
from memorag_pipeline.specs.corpus import CorpusSpec

MODES, REBUILT = ("exact", "delta"), "rebuilt"
STAGES = tuple(stage.name for stage in REFRESH)
GROWS = ("inventory", "index")  # with the corpus: the listing, and the index that is built from all vectors
MOST_TOKENS, MOST_CHUNKS, MOST_GROWTH = 1.5, 1.2, 1.1
MAX_STALE = 0.2


@dataclass(frozen=True)
class Bytes:
    """What went over the network in a stage."""

    source_read: int = 0
    store_written: int = 0
    store_read: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(
            self.source_read + other.source_read,
            self.store_written + other.store_written,
            self.store_read + other.store_read,
        )

    @property
    def all(self) -> int:
        """All of it."""
        return self.source_read + self.store_written + self.store_read


@dataclass(frozen=True)
class Refreshed:
    """A refresh that was measured. `memorized` are tokens read by shard id."""

    pipeline: Pipeline
    result: RefreshResult
    bytes: dict[str, Bytes]
    memorized: dict[str, int]

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.result.seconds.values())

    @property
    def embedded(self) -> int:
        """Chunks."""
        return int(self.result.counts["embed"].get("embedded", 0))

    @property
    def moved(self) -> Bytes:
        """In all stages."""
        return sum(self.bytes.values(), Bytes())

    @cached_property
    def texts(self) -> dict[str, tuple[str, int]]:
        """Text and tokens of each document, by URI."""
        rows = self._rows("documents", ["uri", "text", "tokens"])
        return {row["uri"]: (row["text"], row["tokens"]) for row in rows}

    @cached_property
    def chunks(self) -> set[str]:
        """Digests of the chunks' texts."""
        return {row["digest"] for row in self._rows("chunks", ["digest"])}

    @cached_property
    def memories(self) -> dict[str, tuple[MemoryHeader, str]]:
        """Header and digest of each memory, by shard id."""
        store = self.pipeline.store
        blobs = store.versions.manifest(self.result.version).of_role("memory")
        return {
            Path(blob.path).stem: (read_header(store.blobs.open_file(blob.ref, blob.path)), blob.digest)
            for blob in blobs
        }

    @cached_property
    def base_shards(self) -> set[str]:
        """Ids of the shards other than delta shards."""
        manifest = self.pipeline.store.versions.manifest(self.result.version)
        return {memory.shard_id for memory in manifest.memories if memory.kind == "base"}

    @property
    def tokens(self) -> int:
        """Of all documents."""
        return sum(tokens for _, tokens in self.texts.values())

    def _rows(self, role: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        store = self.pipeline.store
        for blob in store.versions.manifest(self.result.version).of_role(role):
            yield from store.blobs.get_table(blob.ref, columns, blob.path).to_pylist()


class Bench:
    """Buckets, models and clocks of all runs."""

    def __init__(self, arguments: argparse.Namespace, server: Any, options: dict[str, Any], stack: ExitStack) -> None:
        self._arguments, self._options, self._server = arguments, options, server
        self._source = stack.enter_context(counted(server.endpoint))
        self._store = stack.enter_context(counted(server.endpoint))
        self._direct = {**options, "endpoint_url": server.endpoint}

    def new_bucket(self) -> str:
        """Make an empty bucket."""
        name: str = self._server.new_bucket()
        return name

    def copy_units(self, old: Pipeline, new: Pipeline) -> None:
        """Give a new corpus the units of another."""
        fs = s3fs.S3FileSystem(**self._direct)
        for folder in ("units", "blobs"):
            root, target = (pipeline.store.uri.removeprefix("s3://") for pipeline in (old, new))
            with ThreadPoolExecutor(8) as pool:
                for path in fs.find(f"{root}/{folder}"):
                    pool.submit(fs.cp_file, path, target + path.removeprefix(root))

    def site(self, bucket: str) -> Site:
        """An empty site in a separate bucket; uploads there are not counted."""
        return Site(f"s3://{bucket}/site", self._direct)

    def pipeline(self, bucket: str, mode: str) -> Pipeline:
        """From the site in `bucket` into a new store there."""
        arguments = self._arguments
        values: dict[str, Any] = {
            "corpus": f"site-{uuid.uuid4().hex[:8]}",
            "source": {
                "uris": [f"s3://{bucket}/site"],
                "include": ["**/*.md", "**/*.html"],
                "storage_options": self._through(self._source),
                "documents_per_part": arguments.documents_per_part,
            },
            "store": {"uri": f"s3://{bucket}/kb", "storage_options": self._through(self._store)},
            "sharding": {"max_tokens": arguments.shard_tokens, "min_tokens": arguments.shard_tokens // 8},
            "memory": {
                "kind": "selected",
                "policy": "uniform",
                "model": arguments.model,
                "window": arguments.window,
                "ratio": 4,
                "sink": 1,
                "dtype": "float32",
            },
            "embedding": {"model": arguments.embedding, "pooling": "mean"},
        }
        if mode != "exact":
            values["refresh"] = {"mode": mode, "max_stale": MAX_STALE}
        return Pipeline(CorpusSpec.model_validate(values))

    def measure(self, pipeline: Pipeline, run_id: str) -> Refreshed:
        """Refresh, and count by stage."""
        forget_blobs()
        # A separate worker would not have read anything from the store yet.
        result = refresh(Pipeline(pipeline.spec), run_id)
        reports = {report.stage: report for report in read_reports(pipeline.store.objects)}
        moved = {}
        for stage in result.seconds:
            if stage in reports:
                span = reports[stage].began_at, reports[stage].beat_at
                read, _ = self._source.between(*span)
                back, sent = self._store.between(*span)
                moved[stage] = Bytes(read, sent, back)
        return Refreshed(pipeline, result, moved, _memorized(pipeline, reports))

    def _through(self, traffic: Traffic) -> dict[str, Any]:
        return {**self._options, "endpoint_url": traffic.endpoint}


def _memorized(pipeline: Pipeline, reports: dict[str, Any]) -> dict[str, int]:
    """Tokens that were read for each shard in the last run, by the outcomes of the units in its work list."""
    if "memorize" not in reports:
        return {}
    units = pipeline.read_work(reports["memorize"].work, MemorizeList).units
    outcomes = pipeline.store.units.find_all("memorize", [unit.fingerprint for unit in units])
    return {
        unit.shard_id: outcome.counts["memorized_tokens"]
        for unit, outcome in zip(units, outcomes, strict=True)
        if outcome is not None
    }


@dataclass(frozen=True)
class Change:
    """What differs between two versions, in tokens and chunks."""

    tokens: int
    in_changed_lines: int
    chunks: int

    @classmethod
    def between(cls, old: Refreshed, new: Refreshed) -> Change:
        """By their documents and chunks."""
        before = {uri: text for uri, (text, _) in old.texts.items()}
        changed = {uri: tokens for uri, (text, tokens) in new.texts.items() if before.get(uri) != text}
        counter = token_counter(resolve(new.pipeline.spec.memory.model))
        lines = [line for uri in changed for line in _new_lines(before.get(uri, ""), new.texts[uri][0])]
        return cls(sum(changed.values()), sum(counter.counts(lines)), len(new.chunks - old.chunks))


def _new_lines(old: str, new: str) -> Iterator[str]:
    """Lines of a text that are not in an older one, in order."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    for kind, _, _, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            yield from after[start:end]


def tails(old: Refreshed, new: Refreshed) -> int:
    """Tokens of the changed shards from the window of the first changed token on, as the two versions' memories say."""
    known = {digest for _, digest in old.memories.values()}
    total = 0
    for shard_id, (header, digest) in new.memories.items():
        if digest not in known:
            before = old.memories[shard_id][0].window_digests if shard_id in old.memories else ()
            pairs = zip(before, header.window_digests, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            total += header.tokens - same * header.origin.window
    return total


class Tables:
    """Turn measurements into figures."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def day(self, mode: str, day: int, old: Refreshed, new: Refreshed, rebuilt: Refreshed) -> Change:
        """A day's refresh against what changed, and against the full rebuild of the same day."""
        change, name = Change.between(old, new), f"{mode}, day {day}"
        memorized = sum(new.memorized.values())
        note = (
            f"{change.tokens / new.tokens:.2%} of tokens changed ({change.in_changed_lines / new.tokens:.2%} in lines)"
        )
        add = self._add
        add(
            f"{name}: tokens memorized", memorized, "tokens", "full rebuild", sum(rebuilt.memorized.values()), note=note
        )
        if mode == "exact":
            bound = tails(old, new)
            add(f"{name}: tokens memorized", memorized, "tokens", "tails of changed shards", bound, 1.0)
        share = f"{change.chunks / len(new.chunks):.2%} of chunks changed"
        add(f"{name}: chunks embedded", new.embedded, "chunks", "chunks changed", change.chunks, MOST_CHUNKS)
        add(f"{name}: chunks embedded", new.embedded, "chunks", "full rebuild", rebuilt.embedded, note=share)
        for what in ("source_read", "store_written", "store_read"):
            mine, other = getattr(new.moved, what), getattr(rebuilt.moved, what)
            add(f"{name}: {what.replace('_', ' ')}", mine / 1e6, "MB", "full rebuild", other / 1e6)
        by_stage = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in new.result.seconds.items())
        add(f"{name}: seconds", new.seconds, "s", "full rebuild", rebuilt.seconds, note=by_stage)
        return change

    def compaction(self, runs: Sequence[tuple[int, Refreshed, Change]]) -> None:
        """Mode delta: tokens memorized against tokens changed, compaction shared out over the days by what changed."""
        compacted = [sum(n for shard, n in run.memorized.items() if shard in run.base_shards) for _, run, _ in runs]
        changed = sum(change.tokens for *_, change in runs)
        for (day, run, change), own in zip(runs, compacted, strict=True):
            fresh = sum(run.memorized.values()) - own
            shared = sum(compacted) * change.tokens / changed
            note = f"{fresh:,} of delta shards, {own:,} of compaction on this day, {shared:,.0f} amortized"
            self._add(
                f"delta, day {day}: tokens memorized", fresh + shared, "tokens", "tokens changed", change.tokens,
                MOST_TOKENS, note,
            )  # fmt: skip
        total = sum(sum(run.memorized.values()) for _, run, _ in runs)
        self._add("delta, all days: tokens memorized", total, "tokens", "tokens changed", changed, MOST_TOKENS)

    def growth(self, whole: Refreshed, half: Refreshed) -> None:
        """The same change to a corpus, and to half of it: what grows with the corpus."""
        documents, fewer = len(whole.texts), len(half.texts)
        for stage in STAGES:
            if stage in whole.bytes and half.bytes.get(stage, Bytes()).all:
                further = (whole.bytes[stage].all - half.bytes[stage].all) / (documents - fewer)
                note = f"{documents} and {fewer} documents, {further:,.0f} bytes for each more"
                target = None if stage in GROWS else MOST_GROWTH
                self._add(
                    f"exact, day 1: bytes of {stage}", whole.bytes[stage].all / 1e6, "MB", "half of the corpus",
                    half.bytes[stage].all / 1e6, target, note,
                )  # fmt: skip

    def _add(
        self, what: str, value: float, unit: str, against: str, baseline: float, target: float | None = None,
        note: str = "",
    ) -> None:  # fmt: skip
        row = what.partition(": ")[2]
        baseline = max(baseline, 1e-9)
        self._report.add(
            Figure(row, what, "float32", 0, 0, value, unit, against, baseline, None, target, target is not None, note)
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run all days, and print the table."""
    arguments = _arguments(argv)
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is not there: the benchmark needs the knowledge base")
    from tests.fixtures.s3 import ADMIN, run_s3_server

    if not arguments.model:
        torch.set_num_threads(1)  # small layers lose by threads
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memorag-refresh-")))
        arguments.model = arguments.model or str(tiny_memory_model(folder / "memory"))
        arguments.embedding = arguments.embedding or str(tiny_embedding_model(folder / "embedding"))
        stack.enter_context(own_cache(folder / "cache"))
        (folder / "s3").mkdir()
        server = stack.enter_context(run_s3_server(folder / "s3"))
        bench = Bench(arguments, server, dict(ADMIN), stack)
        common = {
            "model": "one random layer" if arguments.model.startswith(str(folder)) else arguments.model,
            "window": arguments.window,
            "shard_tokens": arguments.shard_tokens,
            "documents_per_part": arguments.documents_per_part,
            "device": device_name(),
            "cores": os.cpu_count(),
        }
        run_days(bench, Tables(Report("refresh", common, arguments.append)), arguments)


def run_days(bench: Bench, tables: Tables, arguments: argparse.Namespace) -> None:
    """Measure each mode on each day, a full rebuild of each day but the first, and one day of half the corpus."""
    bucket = bench.new_bucket()
    site = bench.site(bucket)  # of both sizes: where parts and shards end depends on the URIs
    runs = _modes_by_day(bench, bucket, site, read_days(arguments.documents), arguments.modes)
    for mode in arguments.modes:
        days = []
        for before, day in pairwise(DAYS):
            new = runs[mode, day]
            days.append((day, new, tables.day(mode, day, runs[mode, before], new, runs[REBUILT, day])))
        if mode == "delta":
            tables.compaction(days)
    if arguments.growth:
        first, second, _ = DAYS
        documents = read_days(arguments.documents, half=True)
        days_of_half = {first: documents[first], second: documents[second]}
        half = _modes_by_day(bench, bucket, site, days_of_half, ["exact"], rebuild=False)
        tables.growth(runs["exact", second], half["exact", second])


def _modes_by_day(
    bench: Bench, bucket: str, site: Site, days: dict[int, Documents], modes: Sequence[str], rebuild: bool = True
) -> dict[tuple[str, int], Refreshed]:
    """A corpus for each mode over one site, refreshed on each day; and, of all days but the first, a new corpus.

    On the first day all modes make the same memories, so that only the first mode does: the others get its units.
    """
    pipelines = {mode: bench.pipeline(bucket, mode) for mode in modes}
    runs = {}
    for number, (day, documents) in enumerate(days.items()):
        site.show(documents)
        todo = dict(pipelines)
        if number and rebuild:
            todo[REBUILT] = bench.pipeline(bucket, "exact")
        for mode, pipeline in todo.items():
            if number == 0 and mode != modes[0]:
                bench.copy_units(pipelines[modes[0]], pipeline)
            runs[mode, day] = found = bench.measure(pipeline, f"day-{day}")
            print(f"{mode}, day {day}: {len(documents)} documents, {found.seconds:.0f} s", file=sys.stderr, flush=True)
    return runs


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.refresh"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--model", help="memory model; without one, a layer of random numbers")
    parser.add_argument("--embedding", help="embedding model, likewise")
    parser.add_argument("--growth", action="store_true", help="also the same change to half of the corpus")
    parser.add_argument("--documents", type=int, help="number of unchanging documents to take")
    parser.add_argument("--shard-tokens", type=int, default=4096, help="most tokens of a shard")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--documents-per-part", type=int, default=32)
    parser.add_argument("--append", type=Path, help="file for lines of JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
