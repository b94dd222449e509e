"""Attended beacons: the tokens that a second reading attends to most, with their own projections."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from memorag_pipeline.errors import ContextLengthError, MemoryConfigError, MemoryMismatchError
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import EMBEDDING, BeaconParameters
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.network import normalize
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.attended import AttendedMemoryModel
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.models.references import resolve
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.training.attended_pass import hidden_states_attended
from tests.memory.conftest import (
    TYPES,
    MakeFolder,
    assert_same,
    bare,
    beacon_tensors,
    random_beacons,
    same_bits,
    small_model,
    small_stream,
    stream_of,
)

WINDOW, SINK = 32, 1
STREAM = small_stream(110)  # three windows, and 14 tokens of an open one


def attended_beacons(model: PreTrainedModel) -> BeaconParameters:
    """Random keys and values of beacons, in the format of the model."""
    found = random_beacons(model, "kv")
    return BeaconParameters(None, [dict(layer.named_children()) for layer in found.layers], "random")


def attending(
    model_type: str = "llama", sink: int = SINK, ratios: tuple[int, ...] = (4,), **options: int
) -> BeaconMemoryModel:
    model = small_model(model_type)
    found: BeaconMemoryModel = bare(
        model, attended_beacons(model), AttendedMemoryModel, ratios=ratios, sink=sink, **options
    )
    return found


def by_definition(
    model: BeaconMemoryModel, stream: list[int], ratio: int, sink: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Keys (before rotation) and values of each layer after full windows, every score written out.

    With transformers' modules and rotation; attention and choice share nothing with the engine.
    """
    decoder = model.language_model.model.get_decoder()
    beacons, size, windows = model.network.beacons, model.window, len(stream) // model.window
    assert beacons is not None
    once = decoder.embed_tokens(torch.tensor(stream)).unflatten(0, (windows, size))
    hidden, keys, values = torch.cat([once, once], 1), [], []
    for number, layer in enumerate(decoder.layers):
        attention, own = layer.self_attn, beacons.layers[number]
        size_of_head = attention.head_dim
        q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        group = attention.config.num_attention_heads // attention.config.num_key_value_heads
        memory_key, memory_value, following = torch.empty(0), torch.empty(0), []
        for index in range(windows):
            inputs = layer.input_layernorm(hidden[index])
            begin = len(memory_key)
            query = turned(
                decoder, heads(attention.q_proj, inputs, q_norm, size_of_head), range(begin, begin + 2 * size)
            )
            key = turned(decoder, heads(attention.k_proj, inputs, k_norm, size_of_head), range(begin, begin + 2 * size))
            value = heads(attention.v_proj, inputs, None, size_of_head)
            if begin:
                key = torch.cat([turned(decoder, memory_key, range(begin)), key])
                value = torch.cat([memory_value, value])
            scores = torch.einsum("qhd,shd->hqs", query, key.repeat_interleave(group, 1)) * attention.scaling
            later = torch.arange(len(key)) > torch.arange(2 * size)[:, None] + begin
            shares = scores.masked_fill(later, -torch.inf).softmax(-1)
            attended = torch.einsum("hqs,shd->qhd", shares, value.repeat_interleave(group, 1)).flatten(1)
            after = hidden[index] + attention.o_proj(attended)
            following.append(after + layer.mlp(layer.post_attention_layernorm(after)))
            received = shares[:, size:, begin : begin + size].amax(1).unflatten(0, (-1, group)).amax(1)
            first = sink if index == 0 else 0
            received[:, :first] = 2 - torch.arange(first) / 100  # more than any share
            chosen = received.topk(size // ratio + first, -1).indices.sort(-1).values
            new = [
                torch.stack([states[chosen[head], head] for head in range(states.shape[1])], 1)
                for states in (
                    heads(own["k"], inputs[:size], k_norm, size_of_head),
                    heads(own["v"], inputs[:size], None, size_of_head),
                )
            ]
            memory_key, memory_value = (
                torch.cat([old, states]) if begin else states
                for old, states in zip((memory_key, memory_value), new, strict=True)
            )
        keys.append(memory_key)
        values.append(memory_value)
        hidden = torch.stack(following)
    return keys, values


def heads(linear: nn.Module, inputs: Tensor, norm: nn.Module | None, size: int) -> Tensor:
    """Outputs of a projection by head, [slots, heads, d]."""
    states: Tensor = linear(inputs).unflatten(-1, (-1, size))
    return states if norm is None else norm(states)


def turned(decoder: nn.Module, states: Tensor, positions: range) -> Tensor:
    """States [slots, heads, d] rotated by transformers' own table."""
    cosine, sine = decoder.rotary_emb(states, torch.tensor([list(positions)]))
    first, second = states.chunk(2, -1)
    return states * cosine[0][:, None] + torch.cat([-second, first], -1) * sine[0][:, None]


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize(("ratio", "sink"), [(4, 1), (8, 0), (16, 3)])
def test_memories_are_what_the_definition_says(model_type: str, ratio: int, sink: int) -> None:
    model = attending(model_type, sink, (ratio,))
    stream = STREAM[: 3 * WINDOW]
    memory = model.memorize(stream)
    with torch.inference_mode():
        keys, values = by_definition(model, stream, ratio, sink)
    assert memory.slots == sink + 3 * WINDOW // ratio
    for found, wanted in zip((*memory.keys, *memory.values), (*keys, *values), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_without_training_the_first_window_is_as_selected() -> None:
    """Later windows differ, for positions in a memory are ranks."""
    plain = small_model()
    layers = [{name: getattr(layer.self_attn, f"{name}_proj") for name in "kv"} for layer in plain.get_decoder().layers]
    ours = bare(plain, BeaconParameters(None, layers, "copies"), AttendedMemoryModel, sink=SINK)
    theirs = bare(plain, None, SelectedMemoryModel, sink=SINK, policy="attention")
    one, other = (model.memorize(STREAM[:WINDOW]) for model in (ours, theirs))
    for found, wanted in zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # the two multiply other numbers of rows


@pytest.mark.parametrize("ratios", [(4,), (4, 8)])
@pytest.mark.parametrize("tokens", [1, WINDOW, WINDOW + 5, 2 * WINDOW, 3 * WINDOW + 7])
def test_asking_is_as_in_training(ratios: tuple[int, ...], tokens: int) -> None:
    """The loss of what follows a memory is that in a sequence whose last window is open from there on."""
    model = attending(ratios=ratios)
    known = tokens - tokens % WINDOW
    stream = STREAM[: known + WINDOW]
    of_windows = [ratios[index % len(ratios)] for index in range(4)]
    with torch.inference_mode():
        hidden = hidden_states_attended(model.network, torch.tensor([stream, stream[::-1]]), WINDOW, SINK, of_windows)
        logits = model.network.head(normalize(model.network.norm, hidden))
        for row, tokens_of_row in enumerate((stream, stream[::-1])):
            prefix = model.prefix(model.memorize(tokens_of_row[:tokens]))
            rest = tokens_of_row[tokens:]
            found = Rows(model.network, prefix, 1, prefix.row_slots(len(rest))).losses(rest)[1:]
            wanted = nn.functional.cross_entropy(logits[row, tokens:-1], torch.tensor(rest[1:]), reduction="none")
            torch.testing.assert_close(found, wanted[-len(found) :] if len(found) else wanted[:0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_slope_of_the_loss(checkpointing: bool) -> None:
    """Along the gradient the loss changes as the gradient says; what stays is the same so near."""
    model = attending()
    parameters = [tensor for tensor in model.network.beacons.parameters()]  # type: ignore[union-attr]
    tokens = torch.tensor([STREAM[: 3 * WINDOW], STREAM[7 : 7 + 3 * WINDOW]])

    def loss() -> Tensor:
        hidden = hidden_states_attended(model.network, tokens, WINDOW, SINK, (4, 4, 4), checkpointing)
        logits = model.network.head(normalize(model.network.norm, hidden[:, WINDOW:-1]))
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, WINDOW + 1 :].flatten())

    for tensor in parameters:
        tensor.requires_grad_(True)
    loss().backward()
    gradients = [tensor.grad for tensor in parameters]
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients)
    squared = sum(float((gradient**2).sum()) for gradient in gradients if gradient is not None)
    moved = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            for tensor, gradient in zip(parameters, gradients, strict=True):
                tensor += step * gradient / squared**0.5
            moved.append(float(loss()))
            for tensor, gradient in zip(parameters, gradients, strict=True):
                tensor -= step * gradient / squared**0.5
    assert (moved[0] - moved[1]) / 2e-2 == pytest.approx(squared**0.5, rel=0.05)


def test_a_memory_is_extended_cut_and_stored(tmp_path: Path) -> None:
    model = attending(ratios=(4, 8))
    whole = model.memorize(STREAM)
    parts = model.empty()
    for start in range(0, len(STREAM), 37):
        parts = model.extend(parts, STREAM[start : start + 37])
    assert_same(parts, whole)
    cut = model.truncate(whole, 2 * WINDOW)
    assert_same(cut, model.memorize(STREAM[: 2 * WINDOW]))
    assert_same(model.extend(cut, STREAM[2 * WINDOW :]), whole)
    path = tmp_path / "memory.safetensors"
    model.save(whole, path)
    assert same_bits(model.open(path), whole)
    assert not whole.positions


def test_windows_of_ratio_0_are_kept_whole() -> None:
    memory = attending(ratios=(0, 4)).memorize(STREAM[: 2 * WINDOW])
    assert memory.slots == WINDOW + WINDOW // 4


def test_several_streams_and_little_memory_give_the_same() -> None:
    model, narrow = attending(), attending(budget=1 << 20)
    streams = [STREAM, STREAM[5:80], STREAM[:WINDOW]]
    together = model.extend_many([model.empty()] * 3, streams)
    for found, stream in zip(together, streams, strict=True):
        assert_same(found, narrow.memorize(stream))


def test_streams_longer_than_the_context_are_read() -> None:
    """What counts are slots: those of the memory, and the last window read twice."""
    model = attending(context=120)
    memory = model.memorize(small_stream(7 * WINDOW + 3))
    assert memory.slots == SINK + 7 * WINDOW // 4 + 3
    with pytest.raises(ContextLengthError, match=r"memory\.ratio or memory\.context larger"):
        model.memorize(small_stream(9 * WINDOW))


@pytest.fixture
def adapter(tiny_folder: MakeFolder, tmp_path: Path) -> Path:
    """An adapter of attended beacons."""
    folder = tiny_folder("llama")
    tensors = beacon_tensors(load_file(folder / "model.safetensors"), "kv")
    del tensors[EMBEDDING]
    path = tmp_path / "adapter.safetensors"
    save_file(tensors, path, metadata=metadata(folder))
    return path


def metadata(folder: Path, **fields: str) -> dict[str, str]:
    found = {"beacon_window": "32", "beacon_ratio": "4 8", "beacon_sink_size": "1", "beacon_param": "k v"}
    return found | {"beacon_pos": "attended", "base_digest": resolve(str(folder)).digest, "base": "tiny"} | fields


def load(folder: Path, adapter: Path) -> BeaconMemoryModel:
    spec = MemorySpec(kind="beacon", model=str(folder), adapter=str(adapter), dtype="float32")
    found: BeaconMemoryModel = load_memory_model(spec, "en")  # type: ignore[assignment]
    return found


def test_an_adapter_says_that_its_beacons_are_attended(tiny_folder: MakeFolder, adapter: Path, tmp_path: Path) -> None:
    model = load(tiny_folder("llama"), adapter)
    assert isinstance(model, AttendedMemoryModel)
    assert (model.kind, model.window, model.sink, model.origin.ratios) == ("beacon", 32, 1, (4,))
    memory = model.memorize(stream_of(70))
    assert memory.slots == 1 + 2 * 8 + 6
    model.save(memory, tmp_path / "memory.safetensors")
    assert same_bits(model.open(tmp_path / "memory.safetensors"), memory)
    decoding = Decoding(max_new_tokens=40)  # which fill the open window
    alone, together = (model.generate(memory, prompts, decoding) for prompts in (["What?"], ["What?", "Who is it?"]))
    assert alone[0].output_tokens == 40 and together[0].text == alone[0].text


def test_an_adapter_with_an_embedding_is_refused(tiny_folder: MakeFolder, tmp_path: Path) -> None:
    folder, path = tiny_folder("llama"), tmp_path / "other.safetensors"
    save_file(beacon_tensors(load_file(folder / "model.safetensors"), "kv"), path, metadata=metadata(folder))
    with pytest.raises(MemoryMismatchError, match=r"beacon_embed_tokens.*no place"):
        load(folder, path)


def test_queries_of_attended_beacons_are_refused() -> None:
    with pytest.raises(MemoryConfigError, match=r"here: beacon_param 'q k v': attended beacons.*leave the others out"):
        BeaconConfig.of({"beacon_pos": "attended", "beacon_param": ["q", "k", "v"]}, "here")
