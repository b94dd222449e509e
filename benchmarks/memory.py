"""The beacon memory's speed and size, each figure beside what it is measured against, in one run and in turn.

| row      | measured                                 | against, with the same weights               | bound           |
|----------|------------------------------------------|----------------------------------------------|-----------------|
| memorize | tokens/s of reading a stream             | causal prefill by transformers (no head,     | FLOPs           |
|          |                                          | SDPA, DynamicCache) in pieces of one window  |                 |
| memorize | the same                                 | the straightforward loop, window by window   | FLOPs at peak   |
| bits     | tokens/s when bits depend on the window  | all windows of a pass packed together        | 1               |
| together | new tokens/s of many prompts, one memory | 8 of them one at a time, same engine         | both at peak    |
| together | growth of memory while they decode       | computed bytes of the rows' own slots        | 1               |
| alone    | new tokens/s of one prompt               | the straightforward loop's `ask`             | bytes at peak   |
| open     | seconds until a file can be attended to  | reading its bytes; unpickling its tensors    | bytes           |
| int8     | bytes of a file; loss of the next tokens | bfloat16                                     | the codec's own |
| extend   | seconds to read 1,024 tokens more        | reading all anew                             | FLOPs           |
| peak     | growth of memory, less the outputs       | the budget that was given                    | 1               |

All ratios are measured to baseline. FLOPs and bytes are those of `costs`. A bound by FLOPs is what the ratio would be
if both sides computed at the same speed; one "at peak" is the roofline of `Machine`, the best that the device was seen
to do, over the baseline as measured. Beacons are untrained unless the row is about quality; memories that are only
asked or stored hold random numbers. Prompts count as time, not as tokens. Targets were set for the default model
and sizes on two CPU cores.

Run on an idle machine, all rows or some: python -m benchmarks.memory --only together --dtype bfloat16
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.costs import Costs
from benchmarks.figures import Figure, Report
from benchmarks.straightforward import State
from benchmarks.subjects import (
    ADAPTER,
    ADAPTER_SINK,
    ADAPTER_WINDOW,
    MODEL,
    beacon_model,
    load,
    prompts,
    random_memory,
    selected_model,
    state_of,
    straightforward_model,
    text_tokens,
)
from benchmarks.timing import Machine, device_name, give_back, in_turn, peak_growth
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.reader import bytes_per_slot
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel, WindowedMemoryModel
from memorag_pipeline.models.chat import ChatTokenizer

MIB = 2**20
THREADS = 2
ALONE = 8  # prompts that represent all of them asked one at a time
FOLLOWING = 2048  # tokens whose loss shows what a memory is worth
AGAINST_PREFILL = {4096: 0.60, 16_384: 0.45}
TOGETHER = {16: 6.0, 64: 10.0}
BUDGETS = (1, 3, 12)  # windows


@dataclass(frozen=True)
class Bench:
    """What every row is given."""

    given: argparse.Namespace
    model: LanguageModel
    costs: Costs
    machine: Machine
    report: Report

    @property
    def dtype(self) -> str:
        """Its name."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def beacons(self) -> BeaconMemoryModel:
        """Untrained beacons in the form that was asked for."""
        return beacon_model(self.model, self.given.window, self.given.ratio)

    @property
    def asked(self) -> BeaconMemory:
        """A memory of as many slots as were asked for."""
        return random_memory(self.beacons, self.given.slots * self.given.ratio)

    def add(self, row: str, what: str, tokens: int, slots: int, target: float | None = None, **rest: Any) -> None:
        """Report a figure; targets are for the default model on a CPU."""
        meant = self.given.model == MODEL and self.model.device.type == "cpu"
        self.report.add(Figure(row, what, self.dtype, tokens, slots, target=target if meant else None, **rest))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.memory"
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows")
    parser.add_argument("--model", default=MODEL, help="reference or folder of a model, or the name of a shape")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument(
        "--tokens", nargs="+", type=int, default=[4096, 16_384], help="of streams; the last also stored"
    )
    parser.add_argument("--slots", type=int, default=4096, help="of the memory that is asked")
    parser.add_argument("--prompts", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--without-loop", action="store_true", help="leave out the straightforward loop")
    parser.add_argument("--loop-tokens", type=int, help="longest stream that the loop reads; by default all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    common = {
        "model": given.model,
        "window": given.window,
        "compression": given.ratio,
        "runs": given.runs,
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    report = Report("memory", common, given.append)
    for dtype in given.dtype:
        model = load(given.model, dtype)
        machine = Machine.measured(model.dtype, model.device)
        print(f"{dtype}: {machine.flops / 1e9:,.0f} GFLOP/s, {machine.bandwidth / 1e9:,.0f} GB/s", file=sys.stderr)
        bench = Bench(given, model, Costs.of(model.model.config), machine, report)
        for row in given.only:
            with torch.inference_mode():
                ROWS[row](bench)


def memorize(bench: Bench) -> None:
    """Reading a stream, against a plain prefill and against the straightforward loop."""
    given, costs = bench.given, bench.costs
    window, ours = given.window, bench.beacons
    plain = bench.model.model.get_decoder()

    def prefill(stream: Sequence[int]) -> None:
        cache = DynamicCache()
        for start in range(0, len(stream), window):
            piece = torch.tensor([stream[start : start + window]], device=bench.model.device)
            plain(input_ids=piece, past_key_values=cache, use_cache=True)

    for tokens in given.tokens:
        stream, short = text_tokens(bench.model, tokens), text_tokens(bench.model, min(tokens, 2 * window))
        ways: list[Callable[[Sequence[int]], object]] = [ours.memorize, prefill]
        if _with_loop(given, tokens):
            reader = straightforward_model(bench.model, window, given.ratio)
            difference = _difference(ours.memorize(short), reader.memorize(short))
            ways.append(reader.memorize)
        seconds = in_turn(_each(ways, stream), given.runs, _each(ways, short))
        rates = [tokens / taken for taken in seconds]
        needed = costs.memorize(tokens, window, given.ratio) / tokens
        memorized = partial(
            bench.add,
            row="memorize",
            what="memorize",
            tokens=tokens,
            slots=tokens // given.ratio,
            value=rates[0],
            unit="tokens/s",
        )
        memorized(
            against="plain prefill",
            baseline=rates[1],
            bound=costs.prefill(tokens) / tokens / needed,
            target=AGAINST_PREFILL.get(tokens),
            note=f"{needed / 1e6:,.0f} MFLOP a token, {rates[0] * needed / bench.machine.flops:.0%} of peak",
        )
        if not _with_loop(given, tokens):
            continue
        memorized(
            against="straightforward loop",
            baseline=rates[2],
            bound=bench.machine.flops / needed / rates[2],
            target=1.5,
            note=f"keys of the last layer differ by {difference:.1e} of the largest",
        )


def bits(bench: Bench) -> None:
    """Reading with windows one at a time, so that their bits depend on nothing beside them, against packed windows."""
    given, tokens = bench.given, bench.given.tokens[0]
    stream = text_tokens(bench.model, tokens)
    for window in sorted({256, given.window, 2 * given.window}):
        ours = beacon_model(bench.model, window, given.ratio)

        def read(reproducible: bool, ids: Sequence[int], ours: BeaconMemoryModel = ours) -> None:
            ours.reproducible = reproducible
            ours.memorize(ids)

        warm_up = [partial(read, alone, stream[: 2 * window]) for alone in (True, False)]
        seconds = in_turn([partial(read, alone, stream) for alone in (True, False)], given.runs, warm_up)
        bench.add(
            row="bits",
            what=f"window {window}",
            tokens=tokens,
            slots=tokens // given.ratio,
            value=tokens / seconds[0],
            unit="tokens/s",
            against="packed windows",
            baseline=tokens / seconds[1],
            bound=1.0,
            target=0.9 if window >= given.window else None,
        )


def together(bench: Bench) -> None:
    """Many prompts over one memory, against the same prompts one at a time."""
    given, costs, ours = bench.given, bench.costs, bench.beacons
    endless = dataclasses.replace(bench.model, end_ids=frozenset())
    memory, asked = bench.asked, prompts(ours, max(given.prompts))
    prefix = ours.prefix(memory)

    def ask(count: int, at_once: int, new_tokens: int = given.new_tokens) -> None:
        decoding = Decoding(new_tokens)
        decode(endless, asked[:count], decoding, at_once, prefix=prefix, network=ours.network)

    for count in (1, *given.prompts):
        ask(count, count, new_tokens=2)
    alone = min(ALONE, *given.prompts)
    calls = [partial(ask, alone, 1), *(partial(ask, count, count) for count in given.prompts)]
    seconds = in_turn(calls, given.runs, warm_up=())
    rates = [n * given.new_tokens / taken for n, taken in zip((alone, *given.prompts), seconds, strict=True)]
    width = bench.model.dtype.itemsize
    read = costs.token_bytes(memory.slots, width)
    for count, rate in zip(given.prompts, rates[1:], strict=True):
        step = bench.machine.seconds(costs.token(memory.slots, count), read)
        bench.add(
            row="together",
            what=f"{count} prompts together",
            tokens=memory.tokens,
            slots=memory.slots,
            value=rate,
            unit="tokens/s",
            against="one at a time",
            baseline=rates[0],
            # A step for many takes at least as long as for one, and as long as the roofline says.
            bound=min(count, count / step / rates[0]),
            target=TOGETHER.get(count) if given.slots == 4096 else None,
            note=f"{rate * costs.token(memory.slots, 1) / bench.machine.flops:.0%} of peak FLOP/s",
        )
        own = count * prefix.row_slots(max(map(len, asked[:count])) + given.new_tokens)
        bench.add(
            row="together",
            what=f"growth with {count} prompts",
            tokens=memory.tokens,
            slots=memory.slots,
            value=peak_growth(partial(ask, count, count)) / MIB,
            unit="MiB",
            against="rows' own slots",
            baseline=costs.memory_bytes(own, width) / MIB,
            bound=1.0,
            at_most=True,
            note=f"shared by all: {costs.memory_bytes(memory.slots, width) / MIB:,.0f} MiB",
        )


def alone(bench: Bench) -> None:
    """One prompt, against the straightforward loop."""
    given, ours = bench.given, bench.beacons
    if given.without_loop:
        print("alone: skipped, as it is measured against the loop", file=sys.stderr)
        return
    endless = dataclasses.replace(bench.model, end_ids=frozenset())
    reader = straightforward_model(bench.model, given.window, given.ratio)
    memory, prompt = bench.asked, prompts(ours, 1)[0]
    prefix, state = ours.prefix(memory), state_of(reader, memory)

    def ask() -> Sequence[int]:
        decoding = Decoding(given.new_tokens)
        return decode(endless, [prompt], decoding, 1, prefix=prefix, network=ours.network)[0].token_ids

    def ask_straightforward() -> Sequence[int]:
        return reader.ask(state, prompt, given.new_tokens)

    pairs = zip(ask(), ask_straightforward(), strict=True)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), given.new_tokens)
    seconds = in_turn([ask, ask_straightforward], given.runs, warm_up=())
    rates = [given.new_tokens / taken for taken in seconds]
    read = bench.costs.token_bytes(memory.slots, bench.model.dtype.itemsize)
    least = bench.machine.seconds(bench.costs.token(memory.slots, 1), read)
    bench.add(
        row="alone",
        what="one prompt",
        tokens=memory.tokens,
        slots=memory.slots,
        value=rates[0],
        unit="tokens/s",
        against="straightforward loop",
        baseline=rates[1],
        bound=1 / least / rates[1],
        target=1.8 if given.slots == 4096 else None,
        note=f"{read / MIB:,.0f} MiB read a token; first {same} tokens of {given.new_tokens} alike",
    )


def stored(bench: Bench) -> None:
    """Opening a stored memory, against reading its bytes and against unpickling its tensors; page cache warm."""
    ours = bench.beacons
    memory = random_memory(ours, bench.given.tokens[-1])
    with tempfile.TemporaryDirectory() as name:
        path, pickled = Path(name) / "memory.safetensors", Path(name) / "memory.pt"
        ours.save(memory, path)
        # Cloned, because torch.save writes whole storages.
        torch.save([part.clone() for part in (memory.token_ids, *memory.keys, *memory.values)], pickled)
        size = path.stat().st_size

        def opened() -> None:
            ours.prefix(ours.open(path))

        def touched() -> None:
            prefix = ours.prefix(ours.open(path))
            for tensor in (*prefix.keys, *prefix.values):
                tensor.reshape(-1).view(torch.uint8)[::4096].sum()

        calls = [opened, touched, path.read_bytes, lambda: torch.load(pickled, map_location=ours.network.device)]
        # In fresh memory each time, as a task or a service finds it.
        ready, warm, read, unpickled = in_turn(calls, max(bench.given.runs, 5), before=give_back)
    for what, seconds, meant in (("open", ready, True), ("open, every page touched", warm, False)):
        for against, baseline, target in (
            ("reading the file's bytes", read, 1.3),
            ("torch.load of its tensors", unpickled, 1 / 3),
        ):
            bench.add(
                row="open",
                what=what,
                tokens=memory.tokens,
                slots=memory.slots,
                value=1000 * seconds,
                unit="ms",
                against=against,
                baseline=1000 * baseline,
                # The keys, half of the file, are read and written rotated; the others read and write all of it.
                bound=0.5,
                target=target if meant else None,
                at_most=True,
                note=f"{size / MIB:,.0f} MiB",
            )


def int8(bench: Bench) -> None:
    """A memory of real text stored in int8, against bfloat16: bytes, and the loss of the tokens that follow."""
    model, given = bench.model, bench.given
    if not isinstance(model.tokenizer, ChatTokenizer):
        print(f"int8: skipped, {given.model} knows no text", file=sys.stderr)
        return
    kinds: dict[str, tuple[int, Callable[[str], WindowedMemoryModel]]] = {
        # These keep their positions, so that stream and tokens to predict have to fit the context.
        "selected, by attention": (
            min(given.tokens[-1], model.context - FOLLOWING),
            lambda codec: selected_model(model, given.window, given.ratio, 1, "attention", codec),
        ),
        "beacon, adapter": (
            given.tokens[-1],
            lambda codec: beacon_model(model, ADAPTER_WINDOW, given.ratio, ADAPTER_SINK, ADAPTER, codec),
        ),
    }
    if not ADAPTER.exists():
        print(f"int8: no adapter in {ADAPTER.parent}, so only selected memories are measured", file=sys.stderr)
        del kinds["beacon, adapter"]
    for name, (tokens, made) in kinds.items():
        stream = text_tokens(model, tokens + FOLLOWING)
        memory = made("bfloat16").memorize(stream[:tokens])
        sizes, losses = [], []
        with tempfile.TemporaryDirectory() as folder:
            for codec in ("int8", "bfloat16"):
                ours, path = made(codec), Path(folder) / codec
                ours.save(memory, path)
                sizes.append(path.stat().st_size)
                prefix = ours.prefix(ours.open(path))
                rows = Rows(ours.network, prefix, 1, prefix.row_slots(FOLLOWING))
                losses.append(float(rows.losses(stream[tokens:]).mean()))
        # A code for each number; a bfloat16 scale for 128 slots of a key's channel, and for each value's head.
        size = ours.network.layers[0].size
        bound = (1 + 2 / 128 + 1 + 2 / size) / 4
        compared = partial(bench.add, row="int8", tokens=tokens, slots=memory.slots, against="bfloat16", at_most=True)
        compared(
            what=f"file, {name}",
            value=sizes[0] / MIB,
            unit="MiB",
            baseline=sizes[1] / MIB,
            bound=bound,
            target=0.53,
            note="one byte and its share of the scales, for two",
        )
        compared(
            what=f"loss, {name}",
            value=losses[0],
            unit="nats",
            baseline=losses[1],
            bound=1.0,
            target=1.005,
            note=f"of the next {FOLLOWING:,} tokens; {losses[0] / losses[1] - 1:+.3%}",
        )


def extend(bench: Bench) -> None:
    """Reading one more piece, against reading everything again."""
    given, ours, costs = bench.given, bench.beacons, bench.costs
    tokens = given.tokens[-1]
    stream = text_tokens(bench.model, tokens + given.window)
    before = ours.memorize(stream[:tokens])
    ours.rotated(before)
    calls = [lambda: ours.extend(before, stream[tokens:]), lambda: ours.memorize(stream)]
    more, anew = in_turn(calls, given.runs, warm_up=calls[:1])
    needed = [costs.memorize(len(stream), given.window, given.ratio, first) for first in (tokens // given.window, 0)]
    bench.add(
        row="extend",
        what=f"extend by {given.window}",
        tokens=len(stream),
        slots=before.slots,
        value=more,
        unit="s",
        against="memorize all anew",
        baseline=anew,
        bound=needed[0] / needed[1],
        target=0.1,
        at_most=True,
    )


def peak(bench: Bench) -> None:
    """Memory in use while memorizing, without the outputs, against the budget."""
    given = bench.given
    stream = text_tokens(bench.model, given.tokens[-1])
    for count in BUDGETS:
        ours = beacon_model(bench.model, given.window, given.ratio)
        budget = ours.budget = count * bytes_per_slot(ours.network) * (given.window + -(-given.window // given.ratio))
        slots = ours.memorize(stream[: 2 * given.window]).slots * len(stream) // (2 * given.window)
        # Keys, rotated keys and values.
        outputs = bench.costs.memory_bytes(slots, bench.model.dtype.itemsize) * 3 / 2
        bench.add(
            row="peak",
            what="growth over the outputs",
            tokens=len(stream),
            slots=slots,
            value=(peak_growth(partial(ours.memorize, stream)) - outputs) / MIB,
            unit="MiB",
            against=f"budget of {count} windows",
            baseline=budget / MIB,
            bound=1.0,
            target=1.0,
            at_most=True,
            note=f"outputs {outputs / MIB:,.0f} MiB",
        )


ROWS: dict[str, Callable[[Bench], None]] = {
    "memorize": memorize,
    "bits": bits,
    "together": together,
    "alone": alone,
    "open": stored,
    "int8": int8,
    "extend": extend,
    "peak": peak,
}


def _with_loop(given: argparse.Namespace, tokens: int) -> bool:
    return not given.without_loop and (given.loop_tokens is None or tokens <= given.loop_tokens)


def _each(ways: Sequence[Callable[[Sequence[int]], object]], stream: Sequence[int]) -> list[Callable[[], object]]:
    return [partial(way, stream) for way in ways]


def _difference(memory: BeaconMemory, state: State) -> float:
    """How far the last layer's keys of full windows are apart, of the largest of them."""
    keys = state.beacon[-1].keys[0].transpose(0, 1)
    return float((memory.keys[-1][: len(keys)] - keys).abs().max() / keys.abs().max())


if __name__ == "__main__":
    logging.getLogger("memorag_pipeline").setLevel(logging.ERROR)  # that beacons are untrained is on purpose
    main()
