"""What a corpus of many documents costs: the first build, nights in which little changed, and a reader's first search.

| row      | measured                                                                                                  |
|----------|-----------------------------------------------------------------------------------------------------------|
| stage    | seconds, CPU seconds, bytes and calls to and from the store, peak memory of each stage: of the first      |
|          | build, and of nights with 0 %, 0.1 % and 1 % of documents edited, scattered and as neighbours, by mode    |
| grown    | bytes of what the index stage made that no version before has, against the changed share of all of it     |
| night    | an unchanged night against the listing of the source alone                                                |
| commands | seconds and peak memory to open, compare and forecast versions of this size                               |
| reader   | a cold reader on an S3 server: seconds and bytes until the first passages, and of other searches; of the  |
|          | corpus after its nights and of the row index, whichever are measured                                      |
| index    | the index stage alone over generated vectors: seconds, bytes, peak memory; recall of its searches         |
| kinds    | kinds of Faiss indexes over vectors of real chunks (`index_kinds.py`)                                     |

All stages run as they are, one task after the other, in this process; each night begins with an empty cache, as on a
new worker. Documents are made when they are read (`synthetic.py`). Instead of models there are the tokens of each
stream and a vector made of each text's digest; the store is a local folder that counts (`stand_ins.py`).

    python -m benchmarks.scale --documents 20000 --append benchmarks/results/DEVICE.jsonl
    python -m benchmarks.scale --only index --chunks 10000000 --factory IVF4096,SQ8

Run it on an idle machine, with --folder on a disk that has room: a document takes about 25 kB in a version with its
index, and each night adds what it made.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.figures import Report
from benchmarks.meter import Cost, forget_blobs, measured, own_cache, quick_collection
from benchmarks.scale_index import index_blobs, measure_index
from benchmarks.scale_reader import measure_reader
from benchmarks.stand_ins import KIND, PROTOCOL, registered
from benchmarks.synthetic import SyntheticCorpus
from benchmarks.timing import device_name
from benchmarks.tiny_models import tiny_embedding_model, tiny_memory_model
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.forecast import forecast
from memorag_pipeline.refresh.stages import PUBLISH, REFRESH
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import Manifest
from memorag_pipeline.storage.diff import diff
from memorag_pipeline.version import open_version

ROWS, MODES = ("nights", "commands", "reader", "index", "kinds"), ("exact", "delta")
PLACES = ("scattered", "clustered")
MB = 1e6
_FEW = 40  # documents, of which no figures are of interest


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    given = _arguments(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)  # there is nothing to compute in the models
    common = {
        "label": given.label,
        "factory": given.factory,
        "segment_chunks": given.segment_chunks,
        "dimensions": given.dimensions,
        "device": device_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    report = Report("scale", common, given.append)
    with (
        tempfile.TemporaryDirectory(prefix="memorag-scale-", dir=given.folder) as temporary,
        own_cache(Path(temporary) / "cache"),
        registered(given.dimensions),
        quick_collection(),
    ):
        bench = Bench(given, report, Path(temporary))
        if "kinds" in given.only:
            from benchmarks.index_kinds import measure_kinds  # only here: it loads all that answers need

            measure_kinds(given.vectors, given.real, given.queries, Path(temporary), report, given.kinds)
        if {"nights", "commands"} & set(given.only):
            bench.nights()
        if "index" in given.only:
            pipeline = bench.pipeline("index", "exact", "")
            measure_index(pipeline, given.chunks, given.queries, given.dimensions, report)
            if "reader" in given.only:
                measure_reader(pipeline, Path(temporary), report, {"chunks": given.chunks})


class Bench:
    """The corpora of one run, by mode, over one source."""

    def __init__(self, given: argparse.Namespace, report: Report, folder: Path) -> None:
        self._given, self._report, self._folder = given, report, folder
        self._memory = tiny_memory_model(folder / "memory")
        self._embedding = tiny_embedding_model(folder / "embedding")

    def pipeline(self, corpus: str, mode: str, source: str) -> Pipeline:
        """From a source into a store of its own."""
        most = self._given.segment_chunks
        segments = {} if most is None else {"segment_chunks": most}
        values: dict[str, Any] = {
            "corpus": corpus,
            "source": {"uris": [source or "synthetic://none/documents"]},
            "store": {"uri": f"{PROTOCOL}://{self._folder}/store"},
            "memory": {"kind": KIND, "model": str(self._memory), "dtype": "float32"},
            "embedding": {"model": str(self._embedding), "pooling": "mean"},
            "index": {"factory": self._given.factory, **segments},
            "refresh": mode,
            "compute": {"units_per_task": self._given.units_per_task},
        }
        return Pipeline(CorpusSpec.model_validate(values))

    def nights(self) -> None:
        """Each mode's builds and nights, and then what reads the newest version."""
        given = self._given
        few = SyntheticCorpus("warm", _FEW)
        if given.documents > few.documents:  # imports, and what is loaded once per process
            self._refreshed(self.pipeline("warm", "exact", few.serve().uri))
            gc.freeze()
        source = SyntheticCorpus("many", given.documents)
        first, *others = (self.pipeline(mode, mode, source.uri) for mode in given.modes)
        source.serve()
        self._build(first, source)
        for pipeline in others:  # all modes make the same at first
            self._lend_units(first, pipeline)
        for pipeline in (first, *others):
            source.revisions.clear()
            self._run_mode(pipeline, source)
        if "reader" in given.only:
            measure_reader(first, self._folder, self._report, {"documents": given.documents})

    def _build(self, pipeline: Pipeline, source: SyntheticCorpus) -> None:
        """The first version of a corpus."""
        costs, _ = self._refreshed(pipeline)
        mode = pipeline.spec.refresh.mode
        self._add_stages(f"{mode}: first build", source.documents, source.documents, costs)
        self._add("size", mode, {"documents": source.documents, **Known.sizes(_newest(pipeline))})

    def _run_mode(self, pipeline: Pipeline, source: SyntheticCorpus) -> None:
        """The nights that follow the first version."""
        mode = pipeline.spec.refresh.mode
        if pipeline.store.versions.newest() is None:
            self._refreshed(pipeline)  # of units that another mode has made
        known = Known(pipeline)
        known.add(_newest(pipeline))
        for turn, (share, place) in enumerate(self._nights()):
            edited = [] if not share else getattr(source, place)(share, turn)
            source.edit(edited)
            name = f"{mode}: {share:.1%} {place}".strip()
            costs, version = self._refreshed(pipeline)
            self._add_stages(name, len(edited), source.documents, costs)
            if version is None:
                with measured() as listing:
                    Source(pipeline.spec.source).list()
                seconds = sum(cost.seconds for _, cost in costs)
                values = {"seconds": seconds, "listing_seconds": listing.seconds, "ratio": seconds / listing.seconds}
                self._add("night", name, {"documents": source.documents, **values})
            else:
                manifest = _newest(pipeline)
                grown = known.grown(manifest, len(edited) / source.documents)
                self._add("grown", name, {"documents": source.documents, "edited": len(edited), **grown})
        if "commands" in self._given.only:
            self._commands(pipeline, source)

    def _nights(self) -> list[tuple[float, str]]:
        """The share of documents that are edited, and where. With `commands` alone one is needed to compare with."""
        shares = self._given.shares if "nights" in self._given.only else [max(self._given.shares)]
        still = [(share, "") for share in shares if not share]
        places = self._given.places if "nights" in self._given.only else self._given.places[:1]
        return still + [(share, place) for place in places for share in shares if share]

    def _refreshed(self, pipeline: Pipeline) -> tuple[list[tuple[str, Cost]], int | None]:
        """The stages of a refresh with their costs, and the version that it published."""
        forget_blobs()
        costs: dict[str, Cost] = {}
        results: dict[str, dict[str, Any]] = {}
        pipeline = Pipeline(pipeline.spec)  # another worker has nothing in memory either
        for stage in REFRESH:
            if stage.planned_by is not None:
                calls = [(work,) for work in results[stage.planned_by.name][stage.name]]
            else:
                calls = [() if stage.plan_of is None else (results[stage.plan_of.name]["plan"],)]
            results[stage.name] = {}
            with measured() as cost:
                for arguments in calls:
                    run = ("scale",) if stage is PUBLISH else ()
                    results[stage.name] = stage.call(pipeline, *arguments, *run)
            costs[stage.name] = cost
            if results[stage.name].get("changed") is False:
                return list(costs.items()), None
        return list(costs.items()), results[PUBLISH.name]["version"]

    def _commands(self, pipeline: Pipeline, source: SyntheticCorpus) -> None:
        """What a person calls, on the two newest versions."""
        store = pipeline.store
        *_, before, newest = store.versions.retained()
        calls: dict[str, Callable[[], object]] = {
            "open": lambda: open_version(store.uri, newest, trust_models=True).manifest,
            "diff": lambda: diff(store, before, newest),
            "forecast": lambda: forecast(Pipeline(pipeline.spec)),
        }
        for name, call in calls.items():
            forget_blobs()
            with measured() as cost:
                call()
            self._add(
                "commands", f"{pipeline.spec.refresh.mode}: {name}", {"documents": source.documents, **cost.values()}
            )

    def _lend_units(self, old: Pipeline, new: Pipeline) -> None:
        """Give a corpus what the first build of another made, in place of making it again."""
        for name in ("units", "blobs"):
            folder, target = (self._folder / "store" / corpus.spec.corpus / name for corpus in (old, new))
            shutil.copytree(folder, target, copy_function=os.link)

    def _add_stages(self, night: str, edited: int, documents: int, costs: Sequence[tuple[str, Cost]]) -> None:
        for stage, cost in costs:
            self._add("stage", f"{night}: {stage}", {"documents": documents, "edited": edited, **cost.values()})

    def _add(self, row: str, what: str, values: dict[str, float]) -> None:
        self._report.values(row, what, values)


class Known:
    """What the versions of a corpus hold so far: blobs by digest, and texts of chunks."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._blobs = pipeline.store.blobs
        self._digests: set[str] = set()
        self._texts: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    def add(self, manifest: Manifest) -> int:
        """Take in a version; returns how many of its chunks' texts are new."""
        new = [blob for blob in manifest.of_role("chunks") if blob.digest not in self._digests]
        columns = [self._blobs.get_table(blob.ref, ["digest"]).column("digest").to_pylist() for blob in new]
        texts = np.unique(np.array([int(text[:16], 16) for column in columns for text in column], np.uint64))
        fresh = np.setdiff1d(texts, self._texts, assume_unique=True)
        self._texts = np.union1d(self._texts, fresh)
        self._digests.update(blob.digest for blob in manifest.blobs)
        return len(fresh)

    def grown(self, manifest: Manifest, share: float) -> dict[str, float]:
        """Bytes that the index stage made for this version alone, against this share of all that it has."""
        made = index_blobs(manifest)
        new_blobs = [blob for blob in made if blob.digest not in self._digests]
        # Chunk tables of delta segments are new once; those of base segments were written for the corpus.
        whole = sum(blob.size for blob in made if blob.role != "indexed_chunks")
        new = sum(blob.size for blob in new_blobs)
        chunks = self.add(manifest)
        return {
            "new_mb": new / MB,
            "all_mb": whole / MB,
            "new_blobs": len(new_blobs),
            "new_chunks": chunks,
            "chunks": manifest.counts["chunks"],
            "times_share_of_documents": new / (share * whole),
            "times_share_of_chunks": new / (max(chunks, 1) / manifest.counts["chunks"] * whole),
        }

    @staticmethod
    def sizes(manifest: Manifest) -> dict[str, float]:
        """MB of a version by role."""
        roles = dict.fromkeys(blob.role for blob in manifest.blobs)
        return {f"{role}_mb": sum(blob.size for blob in manifest.of_role(role)) / MB for role in roles}


def _newest(pipeline: Pipeline) -> Manifest:
    versions = pipeline.store.versions
    number = versions.newest()
    assert number is not None
    return versions.manifest(number)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.scale"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS[:3])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.001, 0.01], help="edited in a night")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=PLACES, help="where they are")
    parser.add_argument("--chunks", type=int, default=100_000, help="of the row index")
    parser.add_argument("--queries", type=int, default=1000, help="of the row index, compared with all vectors")
    parser.add_argument("--vectors", nargs="+", type=int, default=[200_000], help="of the row kinds")
    parser.add_argument(
        "--kinds", nargs="+", default=[], help="inverted lists for the row kinds, in place of all kinds"
    )
    parser.add_argument("--real", type=int, default=5000, help="chunks that these are made from")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--factory", default="Flat", help="the Faiss index, as in a spec")
    parser.add_argument("--segment-chunks", type=int, help="most texts of a segment; default: that of a spec")
    parser.add_argument("--units-per-task", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where stores and caches are kept while it runs")
    parser.add_argument("--label", default="", help="a word that is written into each line")
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
