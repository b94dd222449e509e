"""How many positions a model has by its configuration, and what a spec may add."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config

from memorag_pipeline.errors import MemoryConfigError
from memorag_pipeline.models.context import context_length, yarn_for

LONG = {"max_position_embeddings": 32768}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_a_sliding_window_limits_the_context() -> None:
    assert context_length(LONG) == 32768
    assert context_length({**LONG, "sliding_window": 4096}) == 4096
    assert context_length({**LONG, "sliding_window": None}) == 32768
    assert context_length({**LONG, "sliding_window": 4096, "use_sliding_window": False}) == 32768
    assert context_length({**LONG, "sliding_window": 4096, "layer_types": ["full_attention"]}) == 32768


def test_a_sliding_window_beside_beacon_fields_does_not() -> None:
    assert context_length({**LONG, "sliding_window": 4096, "beacon_window": 2048}) == 32768


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"rope_scaling": YARN}, 131072),
        ({"rope_parameters": YARN}, 131072),
        ({"rope_scaling": {**YARN, "type": "yarn", "rope_type": None}}, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, 65536),
        ({"rope_scaling": YARN, "max_position_embeddings": 131072}, 131072),
        ({"rope_scaling": YARN, "max_position_embeddings": 40960}, 131072),
        ({"rope_scaling": {**YARN, "rope_type": "linear"}}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, 32768),
        # Whose factor is not that of the length.
        (
            {"rope_scaling": {**YARN, "rope_type": "llama3", "factor": 32, "original_max_position_embeddings": 8192}},
            32768,
        ),
        ({"rope_scaling": None}, 32768),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 32768),
    ],
    ids=str,
)
def test_a_rope_scaling_that_says_its_origin_counts_with_its_factor(fields: dict[str, Any], length: int) -> None:
    assert context_length({**LONG, **fields}) == length


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
def test_a_configuration_completed_by_transformers_says_the_same(kind: Any) -> None:
    for scaling in (None, {"type": "yarn", "factor": 4.0}, YARN):
        raw = {**LONG, "rope_scaling": scaling}
        assert context_length(kind(**raw).to_dict()) == context_length(raw)


def test_a_spec_may_spread_the_rotation_over_more_positions() -> None:
    assert str(yarn_for(LONG, 131072)) == "yarn 4 of 32768"
    assert str(yarn_for({**LONG, "max_position_embeddings": 131072, "rope_scaling": YARN}, 262144)) == "yarn 8 of 32768"


@pytest.mark.parametrize(
    ("config", "context", "told"),
    [
        (LONG, 32768, "memory.context 32768 is not more than the 32768 positions"),
        ({**LONG, "rope_scaling": {"type": "llama3"}}, 131072, "has the rope scaling llama3 already"),
    ],
)
def test_a_scaling_that_cannot_be_is_told(config: dict[str, Any], context: int, told: str) -> None:
    with pytest.raises(MemoryConfigError, match=told):
        yarn_for(config, context)
