"""Publishing, opening and verifying a version of many blobs, on a local folder and on S3.

| row       | measured                                             | against                                           |
|-----------|------------------------------------------------------|---------------------------------------------------|
| write     | seconds to store the blobs, 16 at a time             |                                                   |
| publish   | seconds from manifest to version, all blobs checked  | asking for each blob by itself, 16 at a time,     |
|           | before and after                                     | before and after                                  |
| unchanged | seconds to find that all blobs are there             | asking for each blob by itself, 16 at a time      |
| open      | seconds until the manifest of the version is read    | reading its bytes                                 |
| cold      | seconds until a large blob can be mapped, its digest | the same bytes, by s3fs or shutil into a file,    |
|           | checked; nothing is cached                           | nothing checked: the bandwidth of the store       |
| warm      | the same in a new process, from the local cache      | the same                                          |
| verify    | seconds to read and compare all blobs                |                                                   |
| verified  | seconds of a second call                             | the first                                         |

S3 is the SeaweedFS of the tests on loopback, so its work is done by the same processors; or any with --uri, with
credentials from the environment. Run: python -m benchmarks.artifacts --append benchmarks/results/DEVICE.jsonl
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from benchmarks.figures import Report
from benchmarks.timing import device_name, seconds_of
from memorag_pipeline.storage import BlobRef, CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.verify import verify

AT_ONCE = 16
_LINE = "{:<10} {:<10} {:>8} {:>10} {:>12} {:>7}  {}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.artifacts"
    )
    parser.add_argument("--stores", nargs="+", choices=["local", "s3"], default=["local", "s3"])
    parser.add_argument("--uri", help="root on an S3 store instead of one that is started for this")
    parser.add_argument("--blobs", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=4096, help="of a blob")
    parser.add_argument("--large", type=int, default=256, help="MiB of the blob that is opened")
    parser.add_argument("--append", type=Path, help="file for the lines of JSON")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    common = {"device": device_name(), "load": round(os.getloadavg()[0], 1)}
    report = Report("artifacts", {**common, "blobs": given.blobs, "blob_bytes": given.bytes}, given.append)
    print(_LINE.format("store", "row", "blobs", "measured", "against", "ratio", ""), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="memorag-benchmark-") as folder:
        os.environ["MEMORAG_CACHE"] = f"{folder}/cache"
        for name in given.stores:
            with _root(name, given.uri, Path(folder)) as (uri, options):
                _Bench(name, uri, options, given, report, Path(folder)).run()


@contextmanager
def _root(name: str, uri: str | None, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if name == "local":
        yield str(folder / "store"), {}
    elif uri is not None:
        yield uri, {}
    else:
        from tests.fixtures.s3 import run_s3_server

        (folder / "s3").mkdir()
        with run_s3_server(folder / "s3") as server:
            yield f"s3://{server.new_bucket()}/kb/many", server.options()


class _Bench:
    def __init__(
        self,
        name: str,
        uri: str,
        options: dict[str, Any],
        given: argparse.Namespace,
        report: Report,
        folder: Path,
    ) -> None:
        self.name, self.uri, self.options, self.given = name, uri, options, given
        self.report, self.folder = report, folder
        self.store = CorpusStore(uri, options)

    def run(self) -> None:
        """All rows, in the order of the table."""
        refs: list[BlobRef] = []
        self.add("write", seconds_of(lambda: refs.extend(self._write())), note="blobs stored")
        manifest = self._manifest(refs)
        single = seconds_of(lambda: self._ask_one_by_one(refs))
        publish = seconds_of(lambda: self.store.versions.publish(manifest, "benchmark"))
        self.add("publish", publish, 2 * single, "one by one, before and after")
        listed = seconds_of(lambda: self._require(self.store.versions.missing(manifest) == []))
        self.add("unchanged", listed, single, "one by one")

        record = self.store.versions.record(1)
        raw = seconds_of(lambda: self.store.objects.read(record.manifest.key))
        opened = seconds_of(lambda: CorpusStore(self.uri, self.options).versions.manifest(1))
        self.add("open", opened, raw, f"bytes of the manifest, {record.manifest.size:,}")
        self._large()
        first = seconds_of(lambda: self._require(verify(self.store, 1) == []))
        self.add("verify", first, note="blobs read")
        self.add("verified", seconds_of(lambda: self._require(verify(self.store, 1) == [])), first, "first call")

    def _large(self) -> None:
        """Opening one large blob, of the size of a memory of a few hundred thousand tokens."""
        path, copy = self.folder / "large", self.folder / "copy"
        with path.open("wb") as file:
            for _ in range(self.given.large):
                file.write(os.urandom(1 << 20))
        ref = self.store.blobs.put_file(path)
        path.unlink()
        raw = min(seconds_of(lambda: self._copy(ref, copy)) for _ in range(2))
        copy.unlink()
        rate = f"{ref.size / raw / 1e6:,.0f} MB/s of the store, {ref.size >> 20} MiB"
        cold = CorpusStore(self.uri, self.options)
        self.add("cold", seconds_of(lambda: cold.blobs.open_file(ref)), raw, rate)
        warm = CorpusStore(self.uri, self.options)
        self.add("warm", seconds_of(lambda: warm.blobs.open_file(ref)), raw, rate)

    def _copy(self, ref: BlobRef, target: Path) -> None:
        filesystem, root = url_to_fs(self.uri, **self.options)
        if self.name == "local":
            shutil.copyfile(f"{root}/{ref.key}", target)
        else:
            filesystem.get_file(f"{root}/{ref.key}", str(target), chunksize=16 << 20, max_concurrency=4)

    def _write(self) -> list[BlobRef]:
        padding = bytes(max(0, self.given.bytes - 8))
        return self._at_once(lambda number: self.store.blobs.put_bytes(b"%08d" % number + padding))

    def _ask_one_by_one(self, refs: list[BlobRef]) -> None:
        self._require(all(self._at_once(lambda number: self.store.blobs.exists(refs[number]))))

    def _at_once(self, call: Callable[[int], Any]) -> list[Any]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(call, range(self.given.blobs)))

    @staticmethod
    def _manifest(refs: list[BlobRef]) -> Manifest:
        blobs = [
            ManifestBlob(role="memory", path=f"memories/{number:016x}.safetensors", digest=ref.digest, size=ref.size)
            for number, ref in enumerate(refs)
        ]
        return Manifest(
            corpus="many",
            language="en",
            parent=None,
            spec_fingerprint="0" * 64,
            spec={},
            models=(),
            blobs=tuple(blobs),
            counts={"shards": len(blobs)},
        )

    @staticmethod
    def _require(good: bool) -> None:
        if not good:
            raise RuntimeError("the store does not hold what was written")

    def add(self, row: str, seconds: float, against: float | None = None, note: str = "") -> None:
        """Print a figure."""
        ratio = None if against is None else seconds / against
        record = {"row": row, "store": self.name, "value": seconds, "unit": "s", "baseline": against, "ratio": ratio}
        numbers = {key: float(f"{value:.6g}") for key, value in record.items() if isinstance(value, float)}
        self.report.write({"benchmark": self.report.benchmark, **record, **numbers, "note": note})
        cells = [
            f"{seconds:.3g} s",
            "" if against is None else f"{against:.3g} s",
            "" if ratio is None else f"{ratio:.2f}",
        ]
        print(_LINE.format(self.name, row, self.given.blobs, *cells, note), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
