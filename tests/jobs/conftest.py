"""One small published corpus for all tests of jobs; they only add units to it.

Its passages are found by a real embedding model. Its memories and answers are of a small model of random numbers, with
the tokenizer and the context of a real one: no test here looks at what it writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec

TOPICS = ("await", "break", "lambda", "nonlocal", "pass")
QUESTIONS: list[Any] = [
    {"question_id": "lambda", "question": "Can a lambda expression contain statements or annotations?"},
    {"question_id": "empty", "question": " "},
    {"question_id": "pass", "question": "What happens when the pass statement is executed?"},
    {"question_id": "nonlocal", "question": "To which variables do the names in a nonlocal statement refer?"},
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the corpus: source, store, question files."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="session")
def memory_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the model of memories and answers."""
    from benchmarks.tiny_models import tiny_memory_model

    return str(tiny_memory_model(tmp_path_factory.mktemp("models") / "memory", context=8192))


@pytest.fixture(scope="session")
def make_pipeline(folder: Path, memory_model: str) -> Callable[..., Pipeline]:
    """A pipeline over the corpus with one job `faq`; keyword arguments change the job or (`generation`) the spec."""

    def make(questions: list[Any] | None = None, generation: dict[str, Any] | None = None, **job: Any) -> Pipeline:
        lines = [line if isinstance(line, str) else json.dumps(line) for line in questions or QUESTIONS]
        path = folder / f"questions-{abs(hash(tuple(lines)))}.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        values = {
            "corpus": "topics",
            "source": {"uris": [str(folder / "source")]},
            "store": {"uri": str(folder / "store")},
            "sharding": {"max_tokens": 300, "min_tokens": 64},
            "memory": {"kind": "full", "model": memory_model, "window": 64, "dtype": "float32"},
            "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
            "generation": {
                "max_new_tokens": 5,
                "evidence_tokens": 400,
                "batch_size": 2,
                "dtype": "float32",
                **(generation or {}),
            },
            "compute": {"units_per_task": 1},
            "jobs": {
                "faq": {
                    "questions": {"uri": str(path)},
                    "warehouse": {"database": str(folder / "answers.duckdb")},
                    "clues": ["spans", "draft"],
                    "clue_tokens": 8,
                    "evidence": 3,
                    **job,
                }
            },
        }
        return Pipeline(CorpusSpec.model_validate(values))

    return make


@pytest.fixture(scope="session")
def pipeline(folder: Path, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """The corpus, published once as version 1."""
    source = folder / "source"
    source.mkdir()
    for name in TOPICS:
        (source / f"{name}.rst").write_text(topics[name], encoding="utf-8")
    pipeline = make_pipeline()
    runner.refresh(pipeline, "tests")
    return pipeline
