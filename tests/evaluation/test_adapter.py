"""All that is measured of an adapter, of a small random model with random beacons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from memorag_pipeline.evaluation.adapter import Evaluation, evaluate_adapter
from memorag_pipeline.evaluation.gap import losses
from memorag_pipeline.evaluation.memories import AdapterUnderTest, at_ratio, beacon_model
from memorag_pipeline.evaluation.needles import NeedleTask
from memorag_pipeline.evaluation.recall_quality import ContextQuestion
from memorag_pipeline.memory.engine.language_model import LanguageModel
from tests.memory.conftest import WINDOW, MakeModel, assert_same, stream_of

TEXTS = [stream_of(200, 1), stream_of(100, 2), stream_of(160, 3)]
ASKED, TOKENS = 80, 144
NEEDLES = NeedleTask(lengths=(128,), depths=(0.2, 0.8), trials=1, candidates=3)
QUESTION = ContextQuestion(
    *("1", "topics", "pass", topics["pass"], "What happens?"), ("when it is executed, nothing happens",), "en"
)


@pytest.fixture(scope="module")
def evaluation(tiny: LanguageModel, adapter: Path) -> Iterator[Evaluation]:
    yield evaluate_adapter(
        AdapterUnderTest(tiny, adapter, WINDOW, 1),
        TEXTS,
        (2, 4),
        tokens=TOKENS,
        asked=ASKED,
        needles=NEEDLES,
        questions=[QUESTION],
        policies=("recent", "attention"),
    )


def test_there_is_a_row_for_each_memory(evaluation: Evaluation, adapter: Path) -> None:
    assert [(row.memory, row.ratio) for row in evaluation.memories] == [
        (memory, ratio) for memory in ("beacon", "recent", "attention") for ratio in (2, 4)
    ]
    assert (evaluation.texts, evaluation.tokens, evaluation.asked) == (2, TOKENS, ASKED)
    assert (evaluation.adapter, evaluation.window, evaluation.sink) == (adapter.name, WINDOW, 1)
    assert evaluation.positions == ("1-63", "64-79")
    for row in evaluation.memories:
        share = (evaluation.nothing - row.loss) / (evaluation.nothing - evaluation.all)
        assert row.gap.closed == pytest.approx(share, rel=1e-3)
        assert len(row.gap.by_position) == 2
        assert row.of_other is not None and row.of_other != row.gap.closed
    assert len({row.loss for row in evaluation.memories}) == 6


def test_a_memory_is_that_of_the_spec(
    evaluation: Evaluation, tiny: LanguageModel, adapter: Path, make_model: MakeModel
) -> None:
    """The beacon row at ratio 2 is that of a model that a spec asks for, with the adapter's weights in a checkpoint."""
    ours = at_ratio(beacon_model(tiny, adapter, WINDOW, 1, 4), 2)
    theirs = make_model("beacon", sink=1, ratio=2)
    texts = [text[:TOKENS] for text in TEXTS if len(text) >= TOKENS]
    assert_same(ours.memorize(texts[0]), theirs.memorize(texts[0]))
    assert evaluation.memories[0].loss == pytest.approx(float(losses(theirs, texts, ASKED).mean()), abs=1e-4)


def test_needles_are_asked_of_memories_and_of_the_whole_stream(evaluation: Evaluation) -> None:
    assert [(row.memory, row.ratio) for row in evaluation.needles] == [
        ("beacon", 4),
        ("recent", 4),
        ("attention", 4),
        ("all", 0),
    ]
    assert evaluation.candidates == 3
    for row in evaluation.needles:
        assert [(cell.tokens, cell.depth) for cell in row.cells] == [(128, 0.2), (128, 0.8)]
    for cell in evaluation.needles[-1].cells:
        assert cell.held == cell.full
        assert cell.gap_closed in (None, 1.0)


def test_clues_are_recalled_from_memories(evaluation: Evaluation) -> None:
    assert [(row.memory, row.quality.set, row.quality.questions) for row in evaluation.recall] == [
        (memory, "topics", 1) for memory in ("beacon", "recent", "attention")
    ]


def test_it_is_written_as_json(evaluation: Evaluation) -> None:
    written = json.loads(json.dumps(asdict(evaluation), allow_nan=False))
    assert written["memories"][0]["gap"]["by_position"] == list(evaluation.memories[0].gap.by_position)
    assert written["needles"][0]["cells"][0]["tokens"] == 128


def test_needles_need_no_more_text_than_there_is(
    tiny: LanguageModel, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = replace(NEEDLES, lengths=(128, 512))
    none = replace(NEEDLES, lengths=(512,))
    subject = AdapterUnderTest(tiny, adapter, WINDOW, 1)
    found = [
        evaluate_adapter(subject, TEXTS[:1], (4,), tokens=TOKENS, asked=ASKED, needles=task, policies=("recent",))
        for task in (some, none)
    ]
    assert {cell.tokens for row in found[0].needles for cell in row.cells} == {128}
    assert (found[1].needles, found[1].candidates) == ((), 0)
    told = "no needles in streams of 512 tokens: the held-out texts have 200 in all, the model's context 640"
    assert caplog.messages.count(told) == 2


def test_it_is_the_same_each_time_and_needs_neither_needles_nor_questions(
    evaluation: Evaluation, tiny: LanguageModel, adapter: Path
) -> None:
    again = evaluate_adapter(
        AdapterUnderTest(tiny, adapter, WINDOW, 1),
        TEXTS,
        (2, 4),
        tokens=TOKENS,
        asked=ASKED,
        needles=None,
        policies=("recent", "attention"),
    )
    assert (again.needles, again.recall, again.candidates) == ((), (), 0)
    assert again.memories == evaluation.memories


def test_texts_that_are_all_too_short(tiny: LanguageModel, adapter: Path) -> None:
    with pytest.raises(ValueError, match="none of 3 held-out texts has 1,024 tokens"):
        evaluate_adapter(AdapterUnderTest(tiny, adapter, WINDOW, 1), TEXTS)
