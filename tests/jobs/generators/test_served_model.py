"""A job whose generator is a real OpenAI-compatible server, transformers' own, with the small model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import EndpointRefusedError
from memorag_pipeline.jobs.generators.local import LocalGenerator
from memorag_pipeline.jobs.prompts import load_prompts
from memorag_pipeline.models import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.spec import GenerationSpec
from memorag_pipeline.warehouse import open_warehouse
from tests.jobs.generators.conftest import ask, spec_of

MODEL = "package:smollm2-135m-instruct"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and model name of `transformers serve`."""
    folder = str(resolve(MODEL).folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(Path(sys.executable).with_name("transformers"))
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, script, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


def test_a_job_is_answered_by_the_server_and_lands_with_its_usage(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], served: tuple[str, str]
) -> None:
    url, model = served
    endpoint = {"base_url": url, "concurrency": 2, "prices": {"input": 1.0, "output": 2.0}}
    served_pipeline = make_pipeline(generation={"model": model, "endpoint": endpoint}, clues=[])
    result = runner.answer(served_pipeline, "faq")
    counts = result.counts["generate"]
    assert (counts["answered"], counts["errors"], counts["unfinished"]) == (3, 1, 0)
    rows = (
        open_warehouse(served_pipeline.spec.job("faq").warehouse)
        .query(f"SELECT * FROM memorag.answers WHERE generation_model = '{model} at {url}' ORDER BY question_id")
        .to_pylist()
    )
    assert [(row["question_id"], row["status"]) for row in rows] == [
        ("empty", "error"),
        ("lambda", "answered"),
        ("nonlocal", "answered"),
        ("pass", "answered"),
    ]
    answered = [row for row in rows if row["status"] == "answered"]
    for row in answered:
        assert row["answer"] and 0 < row["output_tokens"] <= 9 and row["input_tokens"] > 100
        assert row["cost"] == pytest.approx((row["input_tokens"] + 2 * row["output_tokens"]) / 1e6)
    assert counts["input_tokens"] == sum(row["input_tokens"] for row in answered)
    assert counts["cost"] == pytest.approx(sum(row["cost"] for row in answered), abs=2e-6)
    again = runner.answer(served_pipeline, "faq")
    assert (again.rows, again.counts["generate"]) == (4, {})


def test_the_server_reads_the_same_tokens_as_the_model_in_this_process(served: tuple[str, str]) -> None:
    url, model = served
    conversation = load_prompts("en").answer("What is a hen?", ["A hen is a bird."])
    local = LocalGenerator(GenerationSpec(model=MODEL, max_new_tokens=12)).reply([conversation])[0]
    (reply,) = ask(spec_of(url, {"model": model, "max_new_tokens": 12}), [conversation[1]["content"]])
    # The system turn of `ask` is another one than that of the prompts.
    system = LocalGenerator(GenerationSpec(model=MODEL)).count_tokens
    expected = local.input_tokens - system(conversation[0]["content"]) + system("Be brief.")
    assert reply.input_tokens == expected
    assert reply.text and reply.output_tokens <= 12


def test_a_model_that_the_server_does_not_have_is_one_error(served: tuple[str, str]) -> None:
    url, _ = served
    with pytest.raises(EndpointRefusedError, match=r"correct generation\.model"):
        ask(spec_of(url, {"model": "someone/unknown"}), ["a", "b"])
