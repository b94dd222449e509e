"""What a token takes as memory, computed from a configuration, is what the codecs and the memories really take."""

from __future__ import annotations

import math
from typing import Any

import pytest

from memorag_pipeline.memory.codecs import CODECS, codec_of
from memorag_pipeline.memory.cost import memory_cost, slot_bytes
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.specs.memory import MemorySpec

SMOLLM2 = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("heads", "size"), [(3, 64), (8, 128), (1, 80), (2, 33)])
def test_the_bytes_of_a_slot_are_those_of_the_codec(codec: str, heads: int, size: int) -> None:
    parts = [part for role in ("keys", "values") for part in codec_of(codec, heads, size).layout(role).values()]
    stored = sum(part.dtype.itemsize * math.prod(part.shape) / part.stride for part in parts)
    assert slot_bytes(codec, heads, size) == pytest.approx(stored)


@pytest.mark.parametrize(
    ("memory", "bytes_per_token"),
    [
        ({}, 23040),
        ({"dtype": "float32"}, 46080),
        ({"dtype": "float32", "codec": "float16"}, 23040),
        ({"codec": "int8"}, 30 * 3 * (128 + 1 + 2)),
        ({"kind": "beacon"}, 5760),
        ({"kind": "beacon", "ratio": [4, 8, 16], "window": 64}, 5760),
        ({"kind": "beacon", "ratio": [0, 8], "window": 64}, 2880),
        ({"kind": "beacon", "ratio": 0}, 23040),
        ({"kind": "selected", "ratio": 16}, 1440),
        ({"kind": "gist", "window": 1024}, 2880),
        ({"kind": "gist", "window": 64}, 11520),
    ],
)
def test_kind_ratio_dtype_and_codec_decide(memory: dict[str, Any], bytes_per_token: float) -> None:
    spec = MemorySpec.model_validate({"model": "m", **memory})
    found = memory_cost(spec, BeaconConfig().over(spec), SMOLLM2)
    assert found is not None
    assert found.bytes_per_token == pytest.approx(bytes_per_token)
    assert found.times == pytest.approx(bytes_per_token / 4, abs=0.1)


def test_a_head_may_have_another_size_than_its_share() -> None:
    spec = MemorySpec(model="m")
    found = memory_cost(spec, BeaconConfig().over(spec), {**SMOLLM2, "head_dim": 128})
    assert found is not None and found.bytes_per_token == 46080


def test_a_configuration_without_sizes_tells_nothing() -> None:
    spec = MemorySpec(model="m")
    assert memory_cost(spec, BeaconConfig().over(spec), {"model_type": "llama"}) is None


def test_what_is_small_already_is_not_told_to_be_smaller() -> None:
    spec = MemorySpec(model="m", codec="int4")
    found = memory_cost(spec, BeaconConfig().over(spec), SMOLLM2)
    assert found is not None and "memory.codec" not in found.words()
