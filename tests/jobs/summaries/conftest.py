"""A small corpus with jobs of kind summaries; models of random numbers, since no test here looks at what they write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec

TOPICS = ("await", "break", "lambda", "nonlocal", "pass", "try", "while")


@pytest.fixture(scope="session")
def summary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the corpus: source, store, warehouse."""
    return tmp_path_factory.mktemp("summaries")


@pytest.fixture(scope="session")
def make_pipeline(summary_folder: Path, tiny_models: dict[str, Any]) -> Callable[..., Pipeline]:
    """A pipeline over the corpus; keyword arguments are its jobs' sections `summaries`, by name."""

    def make(
        folder: Path = summary_folder, generation: dict[str, Any] | None = None, language: str = "en", **jobs: Any
    ) -> Pipeline:
        values = {
            **tiny_models,
            "corpus": "topics",
            "language": language,
            "source": {"uris": [str(folder / "source")], "documents_per_part": 4},
            "store": {"uri": str(folder / "store")},
            "sharding": {"max_tokens": 600, "min_tokens": 64},
            "chunking": {"max_tokens": 64, "overlap_tokens": 8},
            "generation": {"evidence_tokens": 160, "batch_size": 2, **(generation or {})},
            "compute": {"units_per_task": 1},
            "jobs": {
                name: {
                    "kind": "summaries",
                    "warehouse": {"database": str(folder / "warehouse.duckdb")},
                    "summaries": {"recall_tokens": 16, "summary_tokens": 16, "passages": 3, **section},
                }
                for name, section in jobs.items()
            },
        }
        return Pipeline(CorpusSpec.model_validate(values))

    return make


def write_source(folder: Path) -> None:
    """The documents, two of them in a separate folder."""
    for name in TOPICS:
        path = folder / "source" / ("loops" if name in ("break", "while") else ".") / f"{name}.rst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(topics[name], encoding="utf-8")


@pytest.fixture(scope="session")
def summary_pipeline(summary_folder: Path, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """The corpus, published once as version 1, with the job `each` over all documents."""
    write_source(summary_folder)
    pipeline = make_pipeline(each={})
    runner.refresh(pipeline, "tests")
    return pipeline
