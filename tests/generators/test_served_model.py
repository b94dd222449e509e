"""A job whose generator is a real OpenAI-compatible server, transformers' own, with the small model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import EndpointRefusedError
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.warehouse import open_warehouse
from tests.fixtures.ports import free_port
from tests.generators.conftest import ask, spec_of
from tests.jobs.conftest import QUESTIONS

MODEL = "package:smollm2-135m-instruct"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and model name of `transformers serve`."""
    folder = str(resolve(MODEL).folder)
    port = free_port()
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
    generation = {"model": model, "endpoint": endpoint, "max_new_tokens": 4}
    served_pipeline = make_pipeline(QUESTIONS[:3], generation=generation, clues=[], evidence=1)
    result = runner.answer(served_pipeline, "faq")
    counts = result.counts["generate"]
    assert (counts["answered"], counts["errors"], counts["unfinished"]) == (2, 1, 0)
    rows = (
        open_warehouse(served_pipeline.spec.job("faq").warehouse)
        .query(f"SELECT * FROM memorag.answers WHERE generation_model = '{model} at {url}' ORDER BY question_id")
        .to_pylist()
    )
    assert [(row["question_id"], row["status"]) for row in rows] == [
        ("empty", "error"),
        ("lambda", "answered"),
        ("pass", "answered"),
    ]
    for row in rows[1:]:
        assert row["answer"] and 0 < row["output_tokens"] <= 4
        assert row["cost"] == pytest.approx((row["input_tokens"] + 2 * row["output_tokens"]) / 1e6)
        # The server's template makes the same tokens of the conversation as the memory's own.
        (passage,) = json.loads(row["evidence"])
        system, user = load_prompts("en").answer(row["question"], [passage["text"]])
        asked = ChatTokenizer(Path(model)).request(user["content"], system["content"])
        assert row["input_tokens"] == len(asked)
    assert counts["input_tokens"] == sum(row["input_tokens"] for row in rows)
    assert counts["cost"] == pytest.approx(sum(row["cost"] for row in rows[1:]), abs=2e-6)
    again = runner.answer(served_pipeline, "faq")
    assert (again.rows, again.counts["generate"]) == (3, {})


def test_a_model_that_the_server_does_not_have_is_one_error(served: tuple[str, str]) -> None:
    url, _ = served
    with pytest.raises(EndpointRefusedError, match=r"correct generation\.model"):
        ask(spec_of(url, {"model": "someone/unknown"}), ["a", "b"])
