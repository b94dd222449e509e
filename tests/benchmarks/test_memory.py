"""The benchmark of the memory runs on a shape of random numbers, and says what it measured against what."""

from __future__ import annotations

import gc
import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks import memory
from benchmarks.costs import Costs
from benchmarks.figures import Figure
from benchmarks.subjects import beacon_model, load, prompts
from memorag_pipeline.memory.engine.decode import _LEAST_STEM
from memorag_pipeline.memory.stream import common_prefix

SIZES = {"tokens": 128, "window": 64, "slots": 32, "prompts": 2, "new-tokens": 3, "runs": 1, "threads": 1}
ROWS = ["memorize", "together", "alone", "open", "extend", "peak"]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("benchmark") / "results" / "figures.jsonl"
    sizes = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    threads = torch.get_num_threads()
    gc.collect()
    gc.freeze()  # the benchmark collects garbage before each call, and need not look through what other tests left
    with redirect_stdout(StringIO()) as lines, redirect_stderr(StringIO()) as table:
        memory.main(["--model", "tiny-shape", "--dtype", "float32", "--only", *ROWS, "--append", str(path), *sizes])
    torch.set_num_threads(threads)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [json.loads(line) for line in lines.getvalue().splitlines()] == found
    assert all(figure["what"] in table.getvalue() for figure in found)
    return found


def test_every_row_has_both_sides_and_where_they_were_measured(figures: list[dict[str, Any]]) -> None:
    assert {figure["row"] for figure in figures} == set(ROWS)
    for figure in figures:
        assert figure["against"] and figure["device"] and figure["torch"] == torch.__version__
        assert figure["threads"] == 1 and figure["dtype"] == "float32"
        assert figure["ratio"] == pytest.approx(figure["value"] / figure["baseline"], rel=1e-4)
        assert figure["target"] is None, "targets are for the default model"


def test_the_peak_is_measured_with_budgets_in_windows(figures: list[dict[str, Any]]) -> None:
    """Of whatever model: one window is the least that a budget may be."""
    peaks = {figure["against"]: figure["baseline"] for figure in figures if figure["row"] == "peak"}
    assert list(peaks) == [f"budget of {count} windows" for count in memory.BUDGETS]
    assert peaks["budget of 3 windows"] == pytest.approx(3 * peaks["budget of 1 windows"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "against"),
    [
        (["--without-loop"], ["plain prefill"] * 2),
        (["--loop-tokens", "128"], ["plain prefill", "straightforward loop", "plain prefill"]),
    ],
    ids=str,
)
def test_the_loop_is_left_out_where_it_would_take_too_long(options: list[str], against: list[str]) -> None:
    sizes = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    rows = ["--model", "tiny-shape", "--dtype", "float32", "--only", "memorize", "alone"]
    threads = torch.get_num_threads()
    with redirect_stdout(StringIO()) as lines, redirect_stderr(StringIO()):
        memory.main([*rows, *sizes, "--tokens", "128", "192", *options])
    torch.set_num_threads(threads)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [figure["against"] for figure in found if figure["row"] == "memorize"] == against
    assert any(figure["row"] == "alone" for figure in found) == ("--without-loop" not in options)


def test_both_engines_do_the_same_work(figures: list[dict[str, Any]]) -> None:
    notes = {(figure["row"], figure["against"]): figure["note"] for figure in figures}
    differ = float(notes["memorize", "straightforward loop"].split(" differ by ")[1].split()[0])
    assert differ < 1e-5
    assert notes["alone", "straightforward loop"].endswith("first 3 tokens of 3 alike")


@pytest.mark.parametrize(("ratio", "at_most", "reached"), [(0.6, False, True), (0.4, False, False), (0.4, True, True)])
def test_a_target_is_reached_from_the_side_that_is_better(ratio: float, at_most: bool, reached: bool) -> None:
    figure = Figure("row", "what", "float32", 1, 1, ratio, "s", "other", 1.0, target=0.5, at_most=at_most)
    assert figure.reached is reached


def test_costs_count_the_weights_that_a_model_has() -> None:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    costs = Costs.of(config)
    linear = sum(part.weight.numel() for part in model.model.modules() if isinstance(part, torch.nn.Linear))
    assert costs.layers * costs.layer == linear
    assert costs.head == model.get_output_embeddings().weight.numel()
    assert costs.token_bytes(slots=10, width=2) == 2 * (linear + costs.head) + 10 * 3 * 2 * 2 * 8 * 2


def test_extending_costs_what_reading_all_costs_more() -> None:
    costs = Costs(query_output=8, key_value=4, mlp=12, query=4, key=2, layers=3, head=16)
    more = costs.memorize(256, 64, 4, first=3)
    assert costs.memorize(192, 64, 4) + more == pytest.approx(costs.memorize(256, 64, 4))


def test_prompts_of_a_shape_begin_with_a_stem() -> None:
    """As real ones do, or sharing their beginning would not be measured."""
    model = beacon_model(load("tiny-shape", "float32"), window=64, ratio=4)
    asked = prompts(model, 8)
    assert _LEAST_STEM <= min(common_prefix(asked[0], other) for other in asked[1:]) < len(asked[0])
