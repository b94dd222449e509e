"""Small models, as the tests of memories have them, and a training of some seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from memorag_pipeline.memory.engine.language_model import LanguageModel
from tests.memory.conftest import compared_on_the_cpu, one_thread, tiny, tiny_folder

__all__ = ["compared_on_the_cpu", "one_thread", "tiny", "tiny_folder"]


@pytest.fixture(scope="session")
def training_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of texts of a thousand tokens or more, some held out."""
    from memorag_pipeline.training.readers import is_held_out  # which reads Parquet

    found, draw, number = list[str](), random.Random(1), 0
    names = sorted(topics)
    while sum(is_held_out(text, 2) for text in found) < 2 or len(found) < 40:
        number += 1
        text = f"Text {number}.\n" + "".join(topics[name] for name in draw.sample(names, 6))[:9000]
        if len(text) > 8000 and (is_held_out(text, 2) or len(found) < 40):
            found.append(text)
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in found) + "no JSON\n", encoding="utf-8")
    return path


@pytest.fixture
def training_values(tiny: LanguageModel, training_texts: Path, tmp_path: Path) -> dict[str, Any]:
    """A training spec of some seconds."""
    return values_of(tiny, training_texts, tmp_path / "store")


def values_of(tiny: LanguageModel, training_texts: Path, store: Path) -> dict[str, Any]:
    """The same, with its adapters in `store`."""
    return {
        "adapter": "tiny-adapter",
        "store": {"uri": str(store)},
        "model": str(tiny.resolved.folder),
        "data": {"text": [str(training_texts)]},
        "window": 32,
        "schedule": {"tokens": 2048, "sequence_tokens": 128, "batch_tokens": 512, "checkpoint_tokens": 1024},
        "evaluation": {"texts": 2, "ratios": [4, 8], "needles": False},
    }
