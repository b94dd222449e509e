"""The adapter that comes with the package: it is that of the packaged model, and its memory is worth having."""

from __future__ import annotations

from pydoc_data.topics import topics

from benchmarks.subjects import beacon_model
from memorag_pipeline.evaluation.gap import gap, losses, with_all, without_context
from memorag_pipeline.memory.kinds.attended import AttendedMemoryModel
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.models.references import resolve_file
from memorag_pipeline.specs.memory import MemorySpec

MODEL, ADAPTER = "package:smollm2-135m-instruct", "package:smollm2-135m-beacon"


def test_its_memory_closes_most_of_the_gap_at_the_trained_form() -> None:
    path = resolve_file(ADAPTER)
    assert path.stat().st_size <= 16 * 2**20 and path.with_suffix(".md").is_file()
    # The base model's digest is compared with that of the adapter: another conversion of the model would be refused.
    model = load_memory_model(MemorySpec(kind="beacon", model=MODEL, adapter=ADAPTER, dtype="float32"), "en")
    assert isinstance(model, BeaconMemoryModel)
    assert (model.window, model.sink, model.origin.ratios) == (256, 1, (4,))
    language_model = model.language_model
    text = language_model.tokenizer.plain(topics["import"])[:1024]
    assert len(text) == 1024
    nothing, full = without_context(language_model, [text]), with_all(language_model, [text])
    closed = gap(nothing, losses(model, [text]), full).closed
    assert closed > 0.5
    selected = load_memory_model(
        MemorySpec(kind="selected", model=MODEL, window=256, sink=1, ratio=4, dtype="float32"), "en"
    )
    assert isinstance(selected, SelectedMemoryModel)
    assert closed > gap(nothing, losses(selected, [text]), full).closed + 0.05

    measured = beacon_model(language_model, 256, 4, 1, path)  # as the benchmarks have it
    assert type(measured) is type(model) is AttendedMemoryModel
