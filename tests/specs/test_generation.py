"""The settings of an endpoint: what is refused, what decides the replies, and that no API key is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from memorag_pipeline import preflight
from memorag_pipeline.errors import SpecError
from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.section import conflicts
from memorag_pipeline.specs.training import spec_for_corpus
from tests.generators.conftest import spec_of

URL = "http://127.0.0.1:8000/v1"
SECRET = "sk-very-secret-43"


def written(folder: Path, generation: dict[str, Any]) -> Path:
    """A corpus spec with this generator."""
    values = {
        "corpus": "topics",
        "source": {"uris": ["source"]},
        "store": {"uri": "store"},
        "memory": {"model": "package:smollm2-135m-instruct"},
        "embedding": {"model": "package:all-minilm-l6-v2"},
        "generation": generation,
    }
    path = folder / "topics.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("generation", "endpoint", "key", "problem"),
    [
        ({}, {"base_url": None}, "generation.endpoint.base_url", "is missing; kind compatible needs it"),
        ({}, {"kind": "azure"}, "generation.endpoint.api_version", "is missing; kind azure needs it"),
        ({}, {"api_version": "2024-10-21"}, "generation.endpoint.api_version", "has no use for kind compatible"),
        ({}, {"base_url": "127.0.0.1:8000"}, "generation.endpoint.base_url", "is not the URL of an API"),
        ({}, {"base_url": f"{URL}?key={SECRET}"}, "generation.endpoint.base_url", "is not the URL of an API"),
        (
            {},
            {"base_url": f"http://me:{SECRET}@h/v1"},
            "generation.endpoint.base_url",
            "has a password before its host",
        ),
        ({}, {"connection_id": "a", "key_variable": "B"}, "generation.endpoint.connection_id", "are both given"),
        ({}, {"key_variable": SECRET}, "generation.endpoint.key_variable", "is not the name of a variable"),
        ({}, {"api_key": SECRET}, "generation.endpoint.api_key", "is not a key of the spec"),
        ({}, {"budget_cost": 1.0}, "generation.endpoint.budget_cost", "cannot be enforced without prices"),
        ({}, {"prices": {"input": 1}}, "generation.endpoint.prices.output", "is missing"),
        ({"model": None}, {}, "generation.model", "an endpoint has no default model"),
        ({"revision": "main"}, {}, "generation.revision", "has no use with an endpoint"),
        ({"quantization": "int8"}, {}, "generation.quantization", "has no use with an endpoint"),
        (
            {"repetition_penalty": 1.1},
            {"kind": "openai"},
            "generation.repetition_penalty",
            "is not supported by endpoints of kind openai",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("generation") else "",
)
def test_what_cannot_work_is_refused_by_its_key(
    tmp_path: Path, generation: dict[str, Any], endpoint: dict[str, Any], key: str, problem: str
) -> None:
    path = written(tmp_path, {"model": "m", "endpoint": {"base_url": URL, **endpoint}, **generation})
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert [found.key for found in caught.value.problems] == [key]
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        {"kind": "openai"},
        {"kind": "azure", "base_url": "https://name.openai.azure.com", "api_version": "2024-10-21"},
        {"base_url": URL, "connection_id": "models", "prices": {"input": 1, "output": 2}, "budget_cost": 3},
        {"base_url": URL, "budget_tokens": 1000},
    ],
)
def test_every_kind_of_endpoint_can_be_asked_for(tmp_path: Path, endpoint: dict[str, Any]) -> None:
    spec = read_spec(written(tmp_path, {"model": "no/such-model", "endpoint": endpoint}))
    assert spec.generation.endpoint is not None
    # Of its model nothing is known here, so nothing is wrong with it.
    assert preflight.check_models(spec, "topics.yaml") == []


def test_only_what_decides_a_reply_is_in_the_content() -> None:
    plain = spec_of(URL).content()
    for same in (
        {"concurrency": 3, "requests_per_minute": 9, "tokens_per_minute": 900, "retries": 3, "timeout_seconds": 9},
        {"prices": {"input": 1, "output": 1}, "budget_tokens": 10, "budget_cost": 1},
        {"key_variable": "KEY"},
        {"connection_id": "models"},
        {"base_url": URL + "/"},
    ):
        assert spec_of(URL, **same).content() == plain
    for other in ({"base_url": URL + "/v2"}, {"reasoning_effort": "low"}):
        assert spec_of(URL, **other).content() != plain
    assert spec_of(URL, {"batch_tokens": 999, "ask_rows": 64}).content() == plain
    assert spec_of(URL, {"model": "n"}).content() != plain
    assert "endpoint" not in GenerationSpec().content()


def test_a_training_asks_a_model_in_the_process(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": "m", "endpoint": {"base_url": URL}})
    training = spec_for_corpus(path)
    assert (training.generation.model, training.generation.endpoint) == (None, None)
    refused = training.model_copy(update={"generation": spec_of(URL)})
    assert [conflict.keys for conflict in conflicts(refused, refused.rules)] == [("generation.endpoint",)]


def test_a_spec_with_an_endpoint_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, {"model": "m", "endpoint": {"base_url": URL, "budget_tokens": 5}}))
    assert CorpusSpec.model_validate(spec.model_dump(mode="json")) == spec
