"""A cross-encoder's scores are those of its model, for each pair separately, and order the passages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.tiny_models import tiny_reranker
from memorag_pipeline.jobs.answers.retrieve import reading_order, retrieve_evidence
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.models.references import resolve
from memorag_pipeline.preflight import check
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.retrieval.reranker import load_reranker
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import RerankerSpec, RetrievalSpec

PASSAGES = [
    Passage(f"c{number}", "d", "file:///d", number * 100, number * 100 + 90, 0.9 - number / 10, text, "s")
    for number, text in enumerate(["cats sleep all day", "a dog barks", "birds of a feather flock together", "rain"])
]
PAIRS = [("who sleeps?", passage.text) for passage in PASSAGES] + [("why? " * 300, "a long question " * 100)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_reranker(tmp_path_factory.mktemp("reranker")))


class Found:
    """A search that finds all passages."""

    def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        return [PASSAGES[:k] for _ in queries]


def evidence(**retrieval: object) -> list[list[Passage]]:
    return retrieve_evidence(Found(), ["who sleeps?", "who barks?"], [[], ["a clue"]], settings(**retrieval), len)  # type: ignore[arg-type]


def settings(**retrieval: object) -> AnswerSettings:
    return AnswerSettings(
        language="en",
        memory=MemorySpec(model="none"),
        generation=GenerationSpec(model="none"),
        generation_digest="",
        retrieval=RetrievalSpec.model_validate(retrieval),
    )


def test_scores_are_those_of_the_model_whatever_stands_beside_a_pair(model: str) -> None:
    spec = RerankerSpec(model=model, max_tokens=64, batch_size=2)
    scores = load_reranker(spec).scores(PAIRS)
    assert scores == pytest.approx([load_reranker(spec).scores([pair])[0] for pair in PAIRS], abs=1e-6)
    folder = resolve(model).folder
    tokenizer, network = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder),
    )
    with torch.inference_mode():
        expected = [network(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in PAIRS[:4]]
    assert scores[:4] == pytest.approx(expected, abs=1e-5)
    assert load_reranker(spec).scores([]) == []


def test_evidence_is_in_the_order_of_the_scores(model: str) -> None:
    scores = load_reranker(RerankerSpec(model=model)).scores(PAIRS[:4])
    expected = [PASSAGES[number] for number in sorted(range(4), key=lambda number: -scores[number])]
    assert expected != PASSAGES
    assert evidence()[0] == PASSAGES
    assert evidence(reranker={"model": model})[0] == expected


def test_the_generator_reads_in_the_order_that_the_spec_says() -> None:
    shuffled = [PASSAGES[2], PASSAGES[0], replace(PASSAGES[1], uri="file:///a")]
    assert reading_order(shuffled, settings()) == shuffled[::-1]
    expected = [shuffled[2], shuffled[1], shuffled[0]]
    assert reading_order(shuffled, settings(order="document")) == expected
    assert evidence(fusion="union")[0] == PASSAGES == reading_order(PASSAGES[::-1], settings(fusion="union"))


def test_a_model_that_is_no_reranker_is_found_before_any_work(
    model: str, make_spec: Callable[..., CorpusSpec], tmp_path: Path
) -> None:
    def problems(**reranker: object) -> dict[str, str]:
        found = check(make_spec(tmp_path, retrieval={"reranker": reranker}), "kb.yaml")
        return {problem.key: str(problem) for problem in found}

    assert problems(model=model) == {}
    assert "is not a cross-encoder" in problems(model="package:all-minilm-l6-v2")["retrieval.reranker.model"]
    assert "use at most 512" in problems(model=model, max_tokens=513)["retrieval.reranker.max_tokens"]
