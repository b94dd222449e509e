"""What a memory is worth: the share that it closes of the gap between no context and full context.

The figure of merit is that of `memorag_pipeline.evaluation.gap`: the loss of the last 256 of a document's first 1,024
tokens (nats, mean of the 255 that have a token before them), given nothing, a memory of the 768 tokens before, or those
tokens in full. Documents are those of ../shared/data/train/text/train-006.jsonl.zst with 1,024 tokens or more, from the
first; no adapter has seen them.

A line of JSON holds the losses of all documents for one memory; with --append, what the file has for the same settings
is not computed again. Run: python -m benchmarks.quality --append benchmarks/results/quality.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.figures import Report, records
from benchmarks.subjects import ADAPTER, ADAPTER_SINK, ADAPTER_WINDOW, MODEL, Policy, beacon_model, load, selected_model
from benchmarks.timing import device_name
from memorag_pipeline.digests import file_digest
from memorag_pipeline.evaluation.gap import ASKED, TOKENS, gap_closed, row_losses, with_all, without_context
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.kinds.beacon import WindowedMemoryModel

TEXT = Path(__file__).parents[2] / "shared" / "data" / "train" / "text" / "train-006.jsonl.zst"
RATIOS = (4, 8, 16)
POLICIES: tuple[Policy, ...] = get_args(Policy)
KINDS = ("beacon", "untrained", *POLICIES)
PLAIN = 4  # the ratio at which it is shown what training and a sink are for


@dataclass(frozen=True)
class Given:
    """What the last tokens are predicted from: `nothing`, `all`, or a memory, which may be stored in a codec before."""

    kind: str
    ratio: int = 0
    sink: int = 0
    codec: str = ""


NO_CONTEXT, ALL = Given("nothing"), Given("all")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is not in the file, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.quality"
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds, or policies of selected")
    parser.add_argument("--ratios", nargs="+", type=int, default=list(RATIOS))
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default=MODEL, help="reference or folder of a model")
    parser.add_argument("--text", type=Path, default=TEXT, help="lines of JSON with a text; .zst and .gz, too")
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--window", type=int, default=ADAPTER_WINDOW)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    kinds = [kind for kind in given.only if kind != "beacon" or _found(given.adapter, "adapter")]
    if not _found(given.text, "text") or not kinds:
        return
    settings = {
        "model": given.model,
        "dtype": given.dtype,
        "window": given.window,
        "documents": given.documents,
        "adapter": file_digest(given.adapter) if "beacon" in kinds else "",
        "device": device_name(),
    }
    report = Report("quality", settings | {"threads": given.threads, "torch": torch.__version__}, given.append)
    done = _done(given.append, settings)
    model = load(given.model, given.dtype)
    texts = documents(model, given.documents, given.text)
    print(f"{'memory':<44} {'loss':>7} {'gap closed':>17}", file=sys.stderr)
    for subjects in [[NO_CONTEXT], [ALL], *_memories(kinds, given.ratios)]:
        missing = [subject for subject in subjects if subject not in done]
        started = time.perf_counter()
        if missing:
            with torch.inference_mode():
                done |= losses(model, given, missing, texts)
        for subject in subjects:
            _print(subject, done)
            if subject in missing:
                report.write(
                    {
                        "benchmark": "quality",
                        **asdict(subject),
                        "loss": statistics.mean(done[subject]),
                        **_gap(subject, done),
                        "seconds": round(time.perf_counter() - started, 1),
                        "losses": [round(loss, 5) for loss in done[subject]],
                    }
                )


def documents(model: LanguageModel, count: int, text: Path = TEXT) -> list[list[int]]:
    """The first tokens of `count` documents that are long enough, of the lines of JSON in `text`."""
    import pyarrow as pa

    found: list[list[int]] = []
    with pa.input_stream(str(text), compression="detect") as file:
        lines = file.read().splitlines()
    for line in lines:
        tokens = model.tokenizer.plain(json.loads(line)["text"])
        if len(tokens) >= TOKENS:
            found.append(tokens[:TOKENS])
        if len(found) == count:
            return found
    raise ValueError(f"{text}: {len(found)} documents have {TOKENS:,} tokens or more, fewer than {count}")


def losses(
    model: LanguageModel, settings: argparse.Namespace, subjects: Sequence[Given], texts: Sequence[Sequence[int]]
) -> dict[Given, list[float]]:
    """The loss of each text's last tokens, given what `subjects` say; they share kind, ratio and sink."""
    kind = subjects[0].kind
    if kind in (NO_CONTEXT.kind, ALL.kind):
        given = without_context if kind == NO_CONTEXT.kind else with_all
        return {subjects[0]: [float(found.mean()) for found in given(model, texts, ASKED)]}
    ours = {subject.codec: _memory_model(model, settings, subject) for subject in subjects}
    reader = next(iter(ours.values()))
    found: dict[Given, list[float]] = {subject: [] for subject in subjects}
    with tempfile.TemporaryDirectory() as folder:
        for tokens in texts:
            memory = reader.memorize(tokens[:-ASKED])
            for subject in subjects:
                asked, held = ours[subject.codec], memory
                if subject.codec:
                    path = Path(folder) / "memory.safetensors"
                    asked.save(memory, path)
                    held = asked.open(path)
                of_tokens = row_losses(asked.network, asked.prefix(held), tokens[-ASKED:], ASKED)
                found[subject].append(float(of_tokens.mean()))
    return found


def _memory_model(model: LanguageModel, settings: argparse.Namespace, subject: Given) -> WindowedMemoryModel:
    codec, window = subject.codec or None, settings.window
    if subject.kind in ("beacon", "untrained"):
        adapter = settings.adapter if subject.kind == "beacon" else None
        return beacon_model(model, window, subject.ratio, subject.sink, adapter, codec)
    policy = next(policy for policy in POLICIES if policy == subject.kind)
    return selected_model(model, window, subject.ratio, subject.sink, policy, codec)


def _memories(kinds: Sequence[str], ratios: Sequence[int]) -> Iterator[list[Given]]:
    """Memories to compare; those in one list are read once. The adapter was not trained without its sink."""
    for kind in kinds:
        for ratio in ratios:
            if kind != "untrained":
                yield [Given(kind, ratio, ADAPTER_SINK), Given(kind, ratio, ADAPTER_SINK, "int8")]
            elif ratio == PLAIN:
                yield [Given(kind, ratio, ADAPTER_SINK)]
            if kind in POLICIES and ratio == PLAIN:
                yield [Given(kind, ratio)]


def _gap(subject: Given, done: dict[Given, list[float]]) -> dict[str, float | None]:
    """Gap closed and its standard error."""
    if subject in (NO_CONTEXT, ALL):
        return {"gap_closed": None, "standard_error": None}
    closed, error = gap_closed(done[NO_CONTEXT], done[subject], done[ALL])
    return {"gap_closed": closed, "standard_error": error}


def _print(subject: Given, done: dict[Given, list[float]]) -> None:
    name = f"selected, {subject.kind}" if subject.kind in POLICIES else subject.kind
    if subject.ratio:
        name += f", ratio {subject.ratio}, sink {subject.sink}" + (f", {subject.codec}" if subject.codec else "")
    gap = _gap(subject, done)
    closed, error = gap["gap_closed"], gap["standard_error"]
    shown = "" if closed is None else f"{closed:.1%}" + ("" if error is None else f" ± {error:.1%}")
    print(f"{name:<44} {statistics.mean(done[subject]):>7.4f} {shown:>17}", file=sys.stderr, flush=True)


def _done(path: Path | None, settings: dict[str, Any]) -> dict[Given, list[float]]:
    """Losses that a file has for these settings; the adapter matters to beacons alone."""
    found = {}
    for record in records(path):
        if record["benchmark"] != "quality":
            continue
        subject = Given(*(record[name] for name in ("kind", "ratio", "sink", "codec")))
        same = all(record[name] == settings[name] for name in settings if name != "adapter")
        if same and (subject.kind != "beacon" or record["adapter"] == settings["adapter"]):
            found[subject] = list(record["losses"])
    return found


def _found(path: Path, what: str) -> bool:
    if not path.exists():
        print(f"skipped: there is no {what} {path}", file=sys.stderr)
    return path.exists()


if __name__ == "__main__":
    logging.getLogger("memorag_pipeline").setLevel(logging.ERROR)
    main()
