"""Batched replies over one memory: the same tokens as transformers' own generate, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.decode import decode
from memorag_pipeline.memory.full import FullMemoryModel
from memorag_pipeline.memory.interface import Decoding, Generation
from memorag_pipeline.memory.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.rows import Rows, SharedPrefix
from memorag_pipeline.memory.sampling import RowSampler, choose
from tests.memory.conftest import SMOLLM2, TYPES, MakeFolder, reference, stream_of

LENGTHS = (5, 17, 1, 40, 3, 9, 22, 12, 30)
PROMPTS = [stream_of(length, seed=length) for length in LENGTHS]


def prefix_of(model: LanguageModel, stream: Sequence[int]) -> SharedPrefix:
    memory = FullMemoryModel(model, "en", window=32).memorize(stream)
    return SharedPrefix(memory.keys, memory.values, memory.tokens)


def reference_reply(model: torch.nn.Module, token_ids: list[int], new: int, **options: object) -> list[int]:
    reply = model.generate(torch.tensor([token_ids]), max_new_tokens=new, do_sample=False, **options)  # type: ignore[operator]
    tokens: list[int] = reply[0, len(token_ids) :].tolist()
    return tokens[:-1] if tokens[-1] == 2 else tokens


@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_replies_are_those_of_transformers(model_type: str, tiny_folder: MakeFolder) -> None:
    folder = tiny_folder(model_type)
    model, other = load_language_model(str(folder), None, "float32"), reference(folder)
    stream = stream_of(100)
    replies = decode(model, prefix_of(model, stream), PROMPTS, Decoding(max_new_tokens=16), batch_size=4)
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        assert list(reply.token_ids) == reference_reply(other, stream + prompt, 16)


def test_without_a_memory_the_generator_is_plain_generation(tiny: LanguageModel) -> None:
    other = reference(tiny.resolved.folder)
    replies = decode(tiny, None, PROMPTS, Decoding(max_new_tokens=12, repetition_penalty=1.3))
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        assert list(reply.token_ids) == reference_reply(other, prompt, 12, repetition_penalty=1.3)


def test_logits_are_those_of_the_whole_sequence(tiny: LanguageModel) -> None:
    other, stream = reference(tiny.resolved.folder), stream_of(77)
    rows = Rows(tiny, prefix_of(tiny, stream), rows=3, capacity=64)
    with torch.inference_mode():
        first, second = rows.add(PROMPTS[:3]), rows.step([7, 8, 9])
        rows.remove(0)  # row 2 takes its number
        third = rows.step([11, 12]).flip(0)
        for row, tokens in enumerate(([7], [8, 12], [9, 11])):
            expected = other(torch.tensor([stream + PROMPTS[row] + tokens])).logits[0, -len(tokens) - 1 :]
            got = torch.stack([first[row], second[row], *third[row - 1 : row]])
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_does_not_depend_on_its_companions(tiny: LanguageModel, temperature: float) -> None:
    prefix = prefix_of(tiny, stream_of(100))
    decoding = Decoding(10, temperature=temperature, top_p=0.9, repetition_penalty=1.1, seed=3)
    together = decode(tiny, prefix, PROMPTS, decoding, batch_size=9)
    assert together == [decode(tiny, prefix, [prompt], decoding)[0] for prompt in PROMPTS]
    assert decode(tiny, prefix, PROMPTS[::-1], decoding, batch_size=2)[::-1] == together


def test_samples_follow_the_seed(tiny: LanguageModel) -> None:
    prefix = prefix_of(tiny, stream_of(40))
    replies = [decode(tiny, prefix, PROMPTS, Decoding(8, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


def test_samples_have_the_probabilities_of_top_p() -> None:
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log().expand(4000, 4)
    decoding = Decoding(1, temperature=1.0, top_p=0.65)
    samplers = [RowSampler(decoding, [number], 4, torch.device("cpu")) for number in range(4000)]
    counts = torch.bincount(torch.tensor(choose(logits, samplers, decoding)), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([4 / 7, 0, 3 / 7, 0]), atol=0.03, rtol=0)


def test_end_tokens_and_stop_strings_end_a_reply(tiny: LanguageModel) -> None:
    prefix = prefix_of(tiny, stream_of(100))
    plain = decode(tiny, prefix, [PROMPTS[0]], Decoding(16))[0]
    assert (plain.finished, plain.output_tokens) == ("length", 16)
    stop = plain.text[5:9]
    cut = decode(tiny, prefix, [PROMPTS[0]], Decoding(16, stop=("not there", stop)))[0]
    assert cut.finished == "stop"
    assert cut.text == plain.text[: plain.text.index(stop)]
    assert cut.output_tokens < 16
    ended = LanguageModel(**{**vars(tiny), "end_ids": frozenset({plain.token_ids[6]})})
    reply = decode(ended, prefix, [PROMPTS[0]], Decoding(16))[0]
    assert reply.finished == "stop"
    assert reply.token_ids == plain.token_ids[: plain.token_ids.index(plain.token_ids[6])]


def test_finished_rows_are_reported_at_once_and_replies_keep_their_order(tiny: LanguageModel) -> None:
    heard: dict[int, Generation] = {}
    prompts = [stream_of(600), [], *PROMPTS]
    replies = decode(tiny, prefix_of(tiny, stream_of(50)), prompts, Decoding(6), 4, heard.__setitem__)
    assert [heard[index] for index in range(len(prompts))] == replies
    assert [reply.input_tokens for reply in replies] == [600, 0, *LENGTHS]
    assert next(iter(heard)) == 0


def test_a_prompt_that_does_not_fit_is_a_row_with_its_error(tiny: LanguageModel) -> None:
    prefix = prefix_of(tiny, stream_of(630))  # of 640
    long, empty, close = decode(tiny, prefix, [stream_of(10), [], stream_of(7)], Decoding(16))
    assert long.finished == empty.finished == "error"
    assert "10 tokens, but after a memory of 630" in str(long.error)
    assert empty.error == "the prompt has no tokens"
    assert (close.finished, close.output_tokens, close.error) == ("length", 3, None)


def test_no_new_tokens_and_no_prompts(tiny: LanguageModel) -> None:
    assert decode(tiny, None, [], Decoding(4)) == []
    assert decode(tiny, None, [[5, 6]], Decoding(0)) == [Generation("", 2, 0, "length", ())]


def test_damaged_weights_are_told(tiny: LanguageModel) -> None:
    logits = torch.full((1, 4), float("nan"))
    for temperature in (0.0, 1.0):
        decoding = Decoding(1, temperature=temperature)
        with pytest.raises(MemoragError, match="not numbers"):
            choose(logits, [RowSampler(decoding, [1], 4, tiny.device)], decoding)


def test_a_real_model_replies_as_with_transformers() -> None:
    model = load_language_model(SMOLLM2, None, "float32")
    memories = FullMemoryModel(model, "en", window=64)
    text = "A lambda expression makes an anonymous function. The pass statement does nothing. " * 2
    stream = [*memories.stream.opening, *memories.stream.section("file:///docs/lambda.rst", "Lambdas", text)]
    questions = ["What does a lambda expression make?", "What does pass do?"]
    replies = memories.generate(memories.memorize(stream), questions, Decoding(16))
    other = reference(model.resolved.folder)
    for question, reply in zip(questions, replies, strict=True):
        expected = reference_reply(other, stream + memories.stream.suffix(question), 16)
        assert list(reply.token_ids) == expected
    assert "function" in replies[0].text
