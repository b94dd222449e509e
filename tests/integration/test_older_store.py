"""A store that an earlier release wrote opens, and a refresh reuses what is in it.

It is that of the fixture `animals_store`, the store of one refresh, less its reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from memorag_pipeline import open_version
from memorag_pipeline.memory.engine.device import made_on
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import refresh
from memorag_pipeline.specs.corpus import CorpusSpec

TEXTS = {
    "bees.md": "# Bees\n\nA honey bee visits about two million flowers for one jar of honey.\n",
    "otters.md": "# Otters\n\nSea otters hold hands while they sleep, so that they do not drift apart.\n",
}


@pytest.fixture
def spec(animals_store: Path) -> Iterator[dict[str, Any]]:
    """The spec that the store was made with, next to a copy of the store."""
    filesystem = fsspec.filesystem("memory")
    for name, text in TEXTS.items():
        filesystem.pipe(f"/animals/{name}", text.encode())
    memory = {"kind": "selected", "model": "package:smollm2-135m-instruct", "window": 32, "ratio": 16, "codec": "int8"}
    yield {
        "corpus": "animals",
        "source": {"uris": ["memory://animals"]},
        "store": {"uri": str(animals_store)},
        "memory": memory,
        "embedding": {"model": "package:all-minilm-l6-v2", "pooling": "mean"},
    }
    filesystem.rm("/animals", recursive=True)


def test_its_version_is_searched_and_its_memories_are_read(spec: dict[str, Any]) -> None:
    version = open_version(f"{spec['store']['uri']}/animals")
    assert version.search("Who holds hands?", k=1)[0].uri == "memory:///animals/otters.md"
    (memory,) = version.memories().values()
    assert memory.tokens == 91


def test_a_refresh_reads_nothing_again_but_what_changed(spec: dict[str, Any]) -> None:
    pipeline = Pipeline(CorpusSpec.model_validate(spec))
    same = refresh(pipeline, "run-2")
    assert same.counts["shard"]["memorize_units"] == same.counts["embed"]["embedded"] == 0
    assert same.counts["index"]["segments"] == 1
    bears = "# Bears\n\nA bear wakes up when the snow melts.\n"
    fsspec.filesystem("memory").pipe("/animals/bears.md", bears.encode())
    after = refresh(pipeline, "run-3")
    assert after.counts["publish"]["documents"] == 3
    assert after.counts["embed"]["embedded"] == 1
    # What the earlier release made does not say where; what was made now does.
    (before,), (now,) = (pipeline.store.versions.manifest(number).memories for number in (1, after.version))
    assert (before.made_on, now.made_on) == ("", made_on(torch.device("cpu"), reproducible=True))
