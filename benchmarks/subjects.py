"""The subjects of measurements: a model, the memory models over it, texts to read, and memories to ask.

In:  a model reference, or the name of a shape that is filled with random numbers on the device.
Out: models that share one set of weights, so that both sides of a comparison compute with the same.
Wrong: as in `load_language_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Literal, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from benchmarks.straightforward import Slots, State, StraightforwardBeacon, untrained_beacon
from memorag_pipeline.memory.engine.beacon_parameters import BeaconSource, load_beacon_parameters
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.engine.windows import windows
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.kinds.attended import model_class
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel, WindowedMemoryModel
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.references import ResolvedModel

MODEL = "package:smollm2-135m-instruct"
ADAPTER = Path(__file__).parents[2] / "shared" / "adapter" / "smollm2-135m-beacon-r4.bf16.safetensors"
ADAPTER_WINDOW, ADAPTER_SINK = 256, 1
Policy = Literal["uniform", "recent", "attention"]

# Random weights suffice for speed; tiny-shape is for trying a table before the real run.
SHAPES: dict[str, dict[str, int]] = {
    "qwen2-7b-shape": {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "tiny-shape": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
_SHAPE_CONTEXT = 131_072


class NumberTokenizer:
    """Replaces the tokenizer of a model that is only a shape: every three bytes are some token."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def plain(self, text: str) -> list[int]:
        """As `ChatTokenizer`."""
        data = text.encode()
        return [int.from_bytes(data[start : start + 3], "little") % self.vocabulary for start in range(0, len(data), 3)]

    def text(self, token_ids: Sequence[int]) -> str:
        """Nothing: there are no words."""
        return ""


def load(model: str, dtype: str) -> LanguageModel:
    """A model by reference or by the name of a shape, on the GPU if there is one."""
    if model not in SHAPES:
        return load_language_model(model, None, dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Qwen2Config(
        **SHAPES[model], max_position_embeddings=_SHAPE_CONTEXT, tie_word_embeddings=False, eos_token_id=0
    )
    torch.manual_seed(0)
    with device:
        made = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    return LanguageModel(
        model=made.eval().requires_grad_(False),
        tokenizer=cast(ChatTokenizer, NumberTokenizer(config.vocab_size)),
        device=device,
        dtype=getattr(torch, dtype),
        resolved=ResolvedModel(name=model, revision=None, folder=Path(model), digest=model, tokenizer_digest=model),
        context=_SHAPE_CONTEXT,
        end_ids=frozenset(),
    )


def beacon_model(
    model: LanguageModel,
    window: int,
    ratio: int,
    sink: int = 0,
    adapter: Path | None = None,
    codec: str | None = None,
    budget: int | None = None,
) -> BeaconMemoryModel:
    """Kind `beacon`; without an adapter untrained, but with its own projections."""
    resolved = model.resolved
    parameters = load_beacon_parameters(model.model, BeaconSource(resolved.folder, resolved.digest, adapter))
    return model_class(parameters)(
        model,
        Network(model.model, parameters),
        _stream(model),
        _origin("beacon", model, window, ratio, sink, beacon_digest=parameters.digest),
        Ratios((ratio,), "sequence", window, model.context),
        codec,
        budget,
    )


def selected_model(
    model: LanguageModel, window: int, ratio: int, sink: int, policy: Policy, codec: str | None = None
) -> SelectedMemoryModel:
    """Kind `selected`."""
    return SelectedMemoryModel(
        model,
        model.network,
        _stream(model),
        _origin("selected", model, window, ratio, sink, policy=policy),
        Ratios((ratio,), "sequence", window, model.context),
        codec,
    )


def straightforward_model(model: LanguageModel, window: int, ratio: int) -> StraightforwardBeacon:
    """The straightforward loop over the same weights, untrained too."""
    decoder = cast(PreTrainedModel, model.model)
    return StraightforwardBeacon(decoder, untrained_beacon(decoder), window, ratio)


def random_memory(model: WindowedMemoryModel, tokens: int) -> BeaconMemory:
    """A memory of random slots: asking and storing it costs what a real one does, and it is there at once."""
    network, layer = model.network, model.network.layers[0]
    token_ids = torch.zeros(tokens, dtype=torch.int32)
    found = windows(model.window, model.sink, model.ratios.of(token_ids), tokens)
    slots = found[-1].position + len(found[-1].kept)
    generator = torch.Generator(network.device).manual_seed(0)
    shape = (len(network.layers), slots, layer.kv_heads, layer.size)
    keys, values = (
        torch.randn(shape, generator=generator, device=network.device).to(network.dtype).unbind() for _ in range(2)
    )
    return BeaconMemory(token_ids, model.window, keys, values, tuple(found))


def state_of(reader: StraightforwardBeacon, memory: BeaconMemory) -> State:
    """The same memory, of full windows without a sink, for the straightforward loop."""
    state = reader.memorize([])
    for index, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
        state.beacon[index] = Slots(*(slots.transpose(0, 1)[None].contiguous() for slots in (keys, values)))
    state.tokens, state.since_beacon = memory.tokens, memory.windows[-1].rest
    return state


def text_tokens(model: LanguageModel, count: int) -> list[int]:
    """Tokens of the Python language reference, from its beginning again where it is not long enough."""
    found = model.tokenizer.plain("\n\n".join(topics[name] for name in sorted(topics)))
    return (found * -(-count // len(found)))[:count]


def prompts(model: WindowedMemoryModel, count: int) -> list[list[int]]:
    """Tokens of `count` questions."""
    names = sorted(topics)
    return [
        model.stream.suffix(f"Quote what the text says about {names[number % len(names)]}.") for number in range(count)
    ]


def _stream(model: LanguageModel) -> StreamFormat:
    if isinstance(model.tokenizer, ChatTokenizer):
        return StreamFormat.of(model.tokenizer, "en")
    return StreamFormat(model.tokenizer, (), (), ())


def _origin(kind: str, model: LanguageModel, window: int, ratio: int, sink: int, **own: Any) -> MemoryOrigin:
    resolved = model.resolved
    dtype = str(model.dtype).removeprefix("torch.")
    return MemoryOrigin(
        kind=kind,
        model=resolved.name,
        model_digest=resolved.digest,
        tokenizer_digest=resolved.tokenizer_digest,
        window=window,
        dtype=dtype,
        ratios=(ratio,),
        sink=sink,
        **own,
    )
