"""Sections of a visit about the engine: what it computes there, how fast it reads and replies, stores and trains."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import subjects
from benchmarks.gpu_visit import GIB, TRAINED_SHAPE, Visit
from benchmarks.subjects import beacon_model, prompts, random_memory, selected_model, text_tokens
from benchmarks.timing import seconds_of
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.reader import bytes_per_slot
from memorag_pipeline.memory.kinds.beacon import BeaconMemory

_ALONE, _COMPARED, _TOKENS = 4, 16, 24  # prompts and tokens whose replies are compared
_STEPS = 4  # that are profiled


def recorded(visit: Visit) -> None:
    """The cases that were recorded from the reference, in float32."""
    os.environ.setdefault("MEMORAG_TEST_DEVICE", visit.device.type)
    from tests.memory import test_golden

    cases = test_golden.CASES[: visit.sizes.cases]
    passed, skipped, failed = 0, 0, list[str]()
    for case in cases:
        try:
            test_golden.check(case, test_golden.ROOT / "models")
        except Exception as error:
            failed.append(f"{case.name}: {str(error).strip()[:100]}")
        except BaseException as outcome:
            if type(outcome).__name__ != "Skipped":
                raise
            skipped += 1
        else:
            passed += 1
    note = "; ".join(failed[:3]) or f"{skipped} are of training"
    visit.say("recorded cases, float32", f"{passed} of {len(cases) - skipped}", note=note)
    if failed:
        visit.failed.append("recorded")


def consistent(visit: Visit) -> None:
    """What should not matter: another run, other passes, extending, other rows."""
    window = visit.sizes.window
    for dtype in ("float32", "bfloat16"):
        model = visit.narrow(dtype)
        stream = text_tokens(model, 5 * window + window // 3)
        ours = beacon_model(model, window, visit.sizes.ratio)
        whole, again = ours.memorize(stream), ours.memorize(stream)
        extended = ours.extend(ours.memorize(stream[: 3 * window + 5]), stream[3 * window + 5 :])
        ours.budget = 2 * bytes_per_slot(ours.network) * max(each.slots for each in whole.windows)
        pieces = ours.memorize(stream)
        for name, other in (("again", again), ("in other passes", pieces), ("extended", extended)):
            visit.say(f"{dtype}: memorized {name}", _apart(other, whole), note="relative difference, worst layer")
        endless = dataclasses.replace(model, end_ids=frozenset())
        ask = partial(decode, endless, decoding=Decoding(_TOKENS), prefix=ours.prefix(whole), network=ours.network)
        asked = prompts(ours, _COMPARED)
        together = ask(asked, batch_size=_COMPARED)
        alone = [ask([one], batch_size=1)[0] for one in asked[:_ALONE]]
        same = [
            sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*pair, strict=False)))
            for pair in ((one.token_ids, other.token_ids) for one, other in zip(alone, together, strict=False))
        ]
        visit.say(f"{dtype}: first tokens alike alone and together", str(same), note=f"of {_TOKENS}")


def memorize(visit: Visit) -> None:
    """Streams of the mission's lengths, and where the time goes."""
    sizes, ours = visit.sizes, visit.beacons
    ours.memorize(text_tokens(visit.model, 4 * sizes.window))
    for tokens in sizes.streams:
        _memorize(visit, tokens, sizes.ratio)
    stream = text_tokens(visit.model, sizes.streams[0])
    visit.profile(f"memorize {sizes.streams[0]:,}", lambda: ours.memorize(stream))


def long_stream(visit: Visit) -> None:
    """The longest stream, at a higher ratio."""
    _memorize(visit, visit.sizes.long_stream, visit.sizes.long_ratio)


def decoding(visit: Visit) -> None:
    """Many rows over one memory, and a step by its kernels."""
    ours, new = visit.beacons, visit.sizes.new_tokens
    prefix = ours.prefix(random_memory(ours, visit.sizes.slots * visit.sizes.ratio))
    for count in visit.sizes.rows:
        asked = prompts(ours, count)
        ask = partial(decode, visit.endless, asked, prefix=prefix, network=ours.network, batch_size=count)
        ask(decoding=Decoding(3))
        first = seconds_of(partial(ask, decoding=Decoding(1)))
        seconds = max(seconds_of(partial(ask, decoding=Decoding(1 + new))) - first, 1e-9)
        note = f"{seconds / new * 1e3:.2f} ms a step; prompts and first token {first * 1e3:.0f} ms"
        visit.say(f"decode, {count} rows over {prefix.slots:,} slots", count * new / seconds, "tokens/s", note)
        if count in (visit.sizes.rows[0], 64):
            visit.profile(f"decode, {count} rows, {_STEPS} tokens", partial(ask, decoding=Decoding(_STEPS)), 14)


def files(visit: Visit) -> None:
    """Storing and opening a memory, in the model's numbers and in fewer bits."""
    ours = visit.beacons
    memory = random_memory(ours, visit.sizes.slots * visit.sizes.ratio)
    usual = ours.codec
    size = visit.costs.memory_bytes(memory.slots, visit.model.dtype.itemsize)
    folders = [
        path
        for path in (Path("/dev/shm"), Path(tempfile.gettempdir()))
        if path.is_dir() and shutil.disk_usage(path).free > 2 * size  # the first is small in many containers
    ]
    for folder, codec in itertools.product(folders, ("bfloat16", "int8")):
        ours.codec = codec
        with tempfile.TemporaryDirectory(dir=folder) as name:
            path = Path(name) / "memory.safetensors"
            saved = seconds_of(partial(ours.save, memory, path))
            ours.open(path)
            opened = seconds_of(lambda path=path: ours.prefix(ours.open(path)))
            note = f"save {saved:.2f} s, {path.stat().st_size / GIB:.2f} GiB"
        visit.say(f"{codec} in {folder}: open until it can be asked", opened, "s", note)
    ours.codec = usual


def selected(visit: Visit) -> None:
    """Selection by attention, which reads windows twice."""
    sizes = visit.sizes
    ours = selected_model(visit.model, sizes.window, sizes.ratio, 1, "attention")
    stream = text_tokens(visit.model, sizes.streams[0])
    ours.memorize(stream[: 2 * sizes.window])
    seconds, note = visit.peak(partial(ours.memorize, stream))
    visit.say(f"selected by attention, {len(stream):,}", len(stream) / seconds, "tokens/s", note)


def training(visit: Visit) -> None:
    """A training step of a small model, both placements."""
    from memorag_pipeline.specs.training import TrainingSpec
    from memorag_pipeline.training.packing import PackedSequence
    from memorag_pipeline.training.parameters import trainable
    from memorag_pipeline.training.trainer import Trainer

    sizes = visit.sizes
    subjects.SHAPES["trained"] = subjects.SHAPES["tiny-shape"] if sizes.shape == "tiny-shape" else TRAINED_SHAPE
    model = subjects.load("trained", "bfloat16")
    tokens = torch.tensor(text_tokens(model, max(sizes.trained) * sizes.trained_tokens)).view(-1, sizes.trained_tokens)
    for placement, count in itertools.product(("interleave", "attended"), sizes.trained):
        given = {"adapter": "visit", "store": {"uri": "memory://visit"}, "model": "m", "data": {"text": ["none"]}}
        form = {"window": sizes.trained_window, "ratios": [sizes.ratio], "placement": placement}
        spec = TrainingSpec.model_validate(given | form)
        trainer = Trainer(model, trainable(model, spec), spec)
        batch = [PackedSequence(sequence, sequence, "") for sequence in tokens[:count]]

        def step(trainer: Trainer = trainer, batch: list[PackedSequence] = batch) -> None:
            trainer.loss(batch, 0).backward()
            for parameter in trainer.parameters.parameters():
                parameter.grad = None

        step()
        seconds, note = visit.peak(step)
        name = f"training step, {placement}, {count} x {sizes.trained_tokens:,}"
        visit.say(name, count * sizes.trained_tokens / seconds, "tokens/s", note)


def _memorize(visit: Visit, tokens: int, ratio: int) -> None:
    window = visit.sizes.window
    ours = visit.beacons if ratio == visit.sizes.ratio else beacon_model(visit.model, window, ratio)
    stream = text_tokens(visit.model, tokens)
    seconds, peak = visit.peak(partial(ours.memorize, stream))
    rate = visit.costs.memorize(tokens, window, ratio) / seconds / 1e12
    note = ", ".join(filter(None, [f"{tokens / seconds:,.0f} tokens/s", f"{rate:.3g} TFLOP/s", peak]))
    visit.say(f"memorize {tokens:,} at ratio {ratio}", seconds, "s", note)


def _apart(one: BeaconMemory, other: BeaconMemory) -> str:
    """How far two memories differ: in no bit, or by what part of a layer's norm."""
    pairs = list(zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return "same bits"
    return f"{max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs):.1e}"
