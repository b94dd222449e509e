"""Batched replies over one memory: the same tokens as transformers' own generate, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.generation import Decoding, Generation
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.engine.sampling import RowSampler, choose
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.specs.memory import MemorySpec
from tests.memory.conftest import SMOLLM2, TYPES, MakeFolder, MakeModel, reference, stream_of

PrefixOf = Callable[[Sequence[int]], SharedPrefix]
LENGTHS = (5, 17, 1, 40, 3, 9, 22, 12, 30)
PROMPTS = [stream_of(length, seed=length) for length in LENGTHS]


@pytest.fixture(scope="module")
def prefix_of(tiny_memory_model: FullMemoryModel) -> PrefixOf:
    """The plain cache of a stream."""
    return lambda stream: tiny_memory_model.prefix(tiny_memory_model.memorize(stream))


def reference_reply(model: torch.nn.Module, token_ids: list[int], new: int, **options: object) -> list[int]:
    reply = model.generate(torch.tensor([token_ids]), max_new_tokens=new, do_sample=False, **options)  # type: ignore[operator]
    tokens: list[int] = reply[0, len(token_ids) :].tolist()
    return tokens[:-1] if tokens[-1] == 2 else tokens


@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_replies_are_those_of_transformers(
    model_type: str, tiny_folder: MakeFolder, make_model: MakeModel
) -> None:
    model, other = make_model("full", model_type), reference(tiny_folder(model_type))
    stream = stream_of(100)
    prefix = model.prefix(model.memorize(stream))
    replies = decode(model.language_model, PROMPTS, Decoding(max_new_tokens=16), batch_size=4, prefix=prefix)
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        assert list(reply.token_ids) == reference_reply(other, stream + prompt, 16)


def test_without_a_memory_the_generator_is_plain_generation(tiny: LanguageModel) -> None:
    other = reference(tiny.resolved.folder)
    replies = decode(tiny, PROMPTS, Decoding(max_new_tokens=12, repetition_penalty=1.3))
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        assert list(reply.token_ids) == reference_reply(other, prompt, 12, repetition_penalty=1.3)


def test_logits_are_those_of_the_whole_sequence(tiny: LanguageModel, prefix_of: PrefixOf) -> None:
    other, stream = reference(tiny.resolved.folder), stream_of(77)
    rows = Rows(tiny.network, prefix_of(stream), rows=3, capacity=64)
    with torch.inference_mode():
        first, second = rows.add(PROMPTS[:3]), rows.step([7, 8, 9])
        rows.remove(0)  # row 2 takes its number
        third = rows.step([11, 12]).flip(0)
        for row, tokens in enumerate(([7], [8, 12], [9, 11])):
            expected = other(torch.tensor([stream + PROMPTS[row] + tokens])).logits[0, -len(tokens) - 1 :]
            got = torch.stack([first[row], second[row], *third[row - 1 : row]])
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


def test_samples_follow_the_seed(tiny: LanguageModel, prefix_of: PrefixOf) -> None:
    prefix = prefix_of(stream_of(40))
    replies = [decode(tiny, PROMPTS, Decoding(8, temperature=1.0, seed=seed), prefix=prefix) for seed in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


def test_samples_have_the_probabilities_of_top_p() -> None:
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log().expand(4000, 4)
    decoding = Decoding(1, temperature=1.0, top_p=0.65)
    samplers = [RowSampler(decoding, [number], 4, torch.device("cpu")) for number in range(4000)]
    counts = torch.bincount(torch.tensor(choose(logits, samplers, decoding)), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([4 / 7, 0, 3 / 7, 0]), atol=0.03, rtol=0)


def test_end_tokens_and_stop_strings_end_a_reply(tiny: LanguageModel, prefix_of: PrefixOf) -> None:
    prefix = prefix_of(stream_of(100))
    plain = decode(tiny, [PROMPTS[0]], Decoding(16), prefix=prefix)[0]
    assert (plain.finished, plain.output_tokens) == ("length", 16)
    stop = plain.text[5:9]
    cut = decode(tiny, [PROMPTS[0]], Decoding(16, stop=("not there", stop)), prefix=prefix)[0]
    assert cut.finished == "stop"
    assert cut.text == plain.text[: plain.text.index(stop)]
    assert cut.output_tokens < 16
    ended = replace(tiny, end_ids=frozenset({plain.token_ids[6]}))
    reply = decode(ended, [PROMPTS[0]], Decoding(16), prefix=prefix)[0]
    assert reply.finished == "stop"
    assert reply.token_ids == plain.token_ids[: plain.token_ids.index(plain.token_ids[6])]


def test_finished_rows_are_reported_at_once_and_replies_keep_their_order(
    tiny: LanguageModel, prefix_of: PrefixOf
) -> None:
    heard: dict[int, Generation] = {}
    prompts = [stream_of(600), [], *PROMPTS]
    replies = decode(tiny, prompts, Decoding(6), 4, heard.__setitem__, prefix=prefix_of(stream_of(50)))
    assert [heard[index] for index in range(len(prompts))] == replies
    assert [reply.input_tokens for reply in replies] == [600, 0, *LENGTHS]
    assert next(iter(heard)) == 0


@pytest.mark.parametrize(("length", "least"), [(8, 2), (200, 1)])
def test_short_prompts_take_places_together(
    tiny: LanguageModel, prefix_of: PrefixOf, monkeypatch: pytest.MonkeyPatch, length: int, least: int
) -> None:
    sizes = list[int]()
    add = Rows.add

    def counted(rows: Rows, prompts: Sequence[Sequence[int]]) -> Tensor:
        sizes.append(len(prompts))
        return add(rows, prompts)

    monkeypatch.setattr(Rows, "add", counted)
    often_ended = replace(tiny, end_ids=frozenset(range(0, tiny.model.config.vocab_size, 5)))
    prompts = [[10 + number, *stream_of(length)[1:]] for number in range(48)]
    decoding, prefix = Decoding(12, temperature=1.0), prefix_of(stream_of(40))
    together = decode(often_ended, prompts, decoding, 16, prefix=prefix)
    _, *later, _ = sizes
    assert len({reply.output_tokens for reply in together}) > 2
    assert len(later) > 4 and min(later) == least
    assert together == [decode(often_ended, [prompt], decoding, prefix=prefix)[0] for prompt in prompts]


def test_a_prompt_that_does_not_fit_is_a_row_with_its_error(tiny: LanguageModel, prefix_of: PrefixOf) -> None:
    prefix = prefix_of(stream_of(630))  # of 640
    long, empty, close = decode(tiny, [stream_of(10), [], stream_of(7)], Decoding(16), prefix=prefix)
    assert long.finished == empty.finished == "error"
    assert "10 tokens, but after a memory of 630" in str(long.error)
    assert empty.error == "the prompt has no tokens"
    assert (close.finished, close.output_tokens, close.error) == ("length", 3, None)


def test_no_new_tokens_and_no_prompts(tiny: LanguageModel) -> None:
    assert decode(tiny, [], Decoding(4)) == []
    assert decode(tiny, [[5, 6]], Decoding(0)) == [Generation("", 2, 0, "length", ())]


def test_damaged_weights_are_told(tiny: LanguageModel) -> None:
    logits = torch.full((1, 4), float("nan"))
    for temperature in (0.0, 1.0):
        decoding = Decoding(1, temperature=temperature)
        with pytest.raises(MemoragError, match="not numbers"):
            choose(logits, [RowSampler(decoding, [1], 4, tiny.device)], decoding)


def test_a_real_model_replies_as_with_transformers() -> None:
    memories = load_memory_model(MemorySpec(model=SMOLLM2, window=64, dtype="float32"), "en")
    text = "A lambda expression makes an anonymous function. The pass statement does nothing. " * 2
    stream = [*memories.stream.opening, *memories.stream.section("file:///docs/lambda.rst", "Lambdas", text)]
    questions = ["What does a lambda expression make?", "What does pass do?"]
    replies = memories.generate(memories.memorize(stream), questions, Decoding(10))
    other = reference(memories.language_model.resolved.folder)  # type: ignore[attr-defined]
    for question, reply in zip(questions, replies, strict=True):
        expected = reference_reply(other, stream + memories.stream.suffix(question), 10)
        assert list(reply.token_ids) == expected
    assert "function" in replies[0].text
