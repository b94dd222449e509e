"""Whether bits depend on what is computed in the same batch, on the instruction set given to this process.

Run as a separate process, since libraries choose their kernels once: python -m tests.memory.bits [CHECK...]
It prints the instruction set, and what was found to depend on its neighbours.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from memorag_pipeline.memory.kinds.attended import AttendedMemoryModel
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from tests.memory.conftest import (
    bare,
    random_beacons,
    same_bits,
    save_random_model,
    small_model,
    small_stream,
    stream_of,
)
from tests.memory.kinds.test_attended import attended_beacons

# The widths of a real model: kernels choose their blocks by them.
_SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "num_hidden_layers": 2,
}
_WINDOW, _GIST_WINDOW = 64, 32  # a gist is written token by token


def memories(dtype: torch.dtype) -> Iterator[tuple[str, bool]]:
    """For each kind of memory, whether it is the same by itself, with others, extended and cut."""
    model = small_model(**_SHAPE).to(dtype)
    beacons = random_beacons(model).to(dtype)
    attended = attended_beacons(model).to(dtype)
    for name, made in {
        "beacon": bare(model, beacons, BeaconMemoryModel, window=_WINDOW),
        "attended": bare(model, attended, AttendedMemoryModel, window=_WINDOW, sink=1),
        "selected": bare(model, None, SelectedMemoryModel, window=_WINDOW, sink=1, policy="attention"),
        "full": bare(model, None, FullMemoryModel, window=_WINDOW, ratios=(0,)),
    }.items():
        streams = [small_stream(tokens, seed) for seed, tokens in enumerate((195, 1, 67, 130, 40, 128))]
        alone = [made.memorize(stream) for stream in streams]
        together = made.extend_many([made.empty()] * len(streams), streams)
        yield f"{name} together", all(map(same_bits, alone, together))
        begun = [made.memorize(stream[: len(stream) // 2]) for stream in streams]
        rest = [stream[len(stream) // 2 :] for stream in streams]
        yield f"{name} extended", all(map(same_bits, alone, made.extend_many(begun, rest)))
        cut = made.truncate(alone[0], 2 * _WINDOW)
        yield f"{name} cut", same_bits(alone[0], made.extend(cut, streams[0][2 * _WINDOW :]))


def gists() -> Iterator[tuple[str, bool]]:
    """Whether summaries of windows are the same separately and together."""
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), "llama", **_SHAPE)
        made = load_memory_model(
            MemorySpec(kind="gist", model=folder, window=_GIST_WINDOW, dtype="float32", reproducible=True), "en"
        )
    streams = [stream_of(tokens, seed) for seed, tokens in enumerate((_GIST_WINDOW, _GIST_WINDOW + 6))]
    together = made.extend_many([made.empty()] * 2, streams)
    alone = [made.memorize(stream) for stream in streams]
    yield (
        "gist",
        all(
            one.gists == other.gists and same_bits(one.read, other.read)
            for one, other in zip(alone, together, strict=True)
        ),
    )


def vectors() -> Iterator[tuple[str, bool]]:
    """Whether a text's vector is the same by itself, with others, and in another order."""
    embedder = load_embedder(EmbeddingSpec(model="package:all-minilm-l6-v2"))
    texts = [" ".join(["memory"] * count) for count in (1, 3, 3, 7, 15, 15, 33, 70, 70, 130)]
    alone = np.concatenate([embedder.embed_passages([text]) for text in texts])
    yield "vectors", bool((embedder.embed_passages(texts) == alone).all())
    yield "vectors reversed", bool((embedder.embed_passages(texts[::-1])[::-1] == alone).all())


def main() -> None:
    """Print what was found."""
    torch.set_num_threads(1)
    checks: dict[str, Callable[[], Iterator[tuple[str, bool]]]] = {
        "float32": lambda: memories(torch.float32),
        "bfloat16": lambda: memories(torch.bfloat16),
        "gist": gists,
        "vectors": vectors,
    }
    wanted = sys.argv[1:] or checks
    found = {f"{name}: {what}": same for name in wanted for what, same in checks[name]()}
    print(
        json.dumps(
            {
                "isa": torch.backends.cpu.get_cpu_capability(),
                "checked": len(found),
                "differing": [what for what, same in found.items() if not same],
            }
        )
    )


if __name__ == "__main__":
    main()
