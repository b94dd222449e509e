"""Memory kind `full`, side by side in one run: reading a stream, and prompts that share one memory.

* memorize: tokens/s against a plain causal prefill by the same model in transformers (pieces of one window, no head,
  SDPA). Both do the same FLOPs, 2 x parameters x tokens plus attention, so the bound of the ratio is about 1.
* decode: tokens/s of 16 prompts together against the same prompts one at a time. Alone, each step reads the weights
  (270 MB) and the memory (23 kB a slot) for one token, together once for 16: the bound of the ratio is 16.

Prints one line of JSON. Run on an idle machine: .venv/bin/python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pydoc_data.topics import topics
from typing import Any

import torch
from transformers import AutoModel, DynamicCache

from memorag_pipeline.memory.decode import decode
from memorag_pipeline.memory.full import FullMemoryModel
from memorag_pipeline.memory.interface import Decoding
from memorag_pipeline.memory.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.rows import SharedPrefix

MODEL = "package:smollm2-135m-instruct"
WINDOW = 1024
ROWS = 16
NEW_TOKENS = 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    model = load_language_model(MODEL, None, given.dtype)
    stream = model.tokenizer.plain("\n\n".join(topics[name] for name in sorted(topics)))[: given.tokens]
    figures = {
        "benchmark": "memory",
        "model": MODEL,
        "dtype": given.dtype,
        "tokens": given.tokens,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "runs": given.runs,
        "memorize": memorize(model, stream, given.runs),
        "decode": together(model, stream[: given.tokens // 2], given.runs),
    }
    print(json.dumps(figures))


def memorize(model: LanguageModel, stream: list[int], runs: int) -> dict[str, Any]:
    """Tokens/s of reading `stream`, ours and by transformers, in turn."""
    ours = FullMemoryModel(model, "en", WINDOW)
    plain = AutoModel.from_pretrained(model.resolved.folder, dtype=model.dtype, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def prefill() -> None:
        cache = DynamicCache()
        for start in range(0, len(stream), WINDOW):
            plain(input_ids=torch.tensor([stream[start : start + WINDOW]]), past_key_values=cache, use_cache=True)

    first, second = in_turn(lambda: ours.memorize(stream), prefill, runs)
    return {
        "tokens_per_second": round(len(stream) / first),
        "transformers_tokens_per_second": round(len(stream) / second),
        "ratio": round(second / first, 2),
        "bound": 1.0,
    }


def together(model: LanguageModel, stream: list[int], runs: int) -> dict[str, Any]:
    """New tokens/s, prompts included, of all prompts over one memory together and one at a time, in turn."""
    ours = FullMemoryModel(model, "en", WINDOW)
    memory = ours.memorize(stream)
    prefix = SharedPrefix(memory.keys, memory.values, memory.tokens)
    prompts = [ours.stream.suffix(f"Quote what the text says about {name}.") for name in sorted(topics)[:ROWS]]
    written: list[int] = []

    def ask(batch_size: int) -> None:
        replies = decode(model, prefix, prompts, Decoding(NEW_TOKENS), batch_size)
        written.append(sum(reply.output_tokens for reply in replies))

    first, second = in_turn(lambda: ask(ROWS), lambda: ask(1), runs)
    tokens = statistics.median(written)
    return {
        "slots": memory.slots,
        "prompts": ROWS,
        "tokens_per_second": round(tokens / first, 1),
        "one_at_a_time_tokens_per_second": round(tokens / second, 1),
        "ratio": round(second / first, 2),
        "bound": ROWS,
    }


def in_turn(first: Callable[[], object], second: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median seconds of two calls, run in turn after one warm-up of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs + 1):
        for call, taken in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


if __name__ == "__main__":
    main()
