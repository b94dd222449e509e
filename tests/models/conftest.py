"""Shared by the tests of tokenizers."""

from __future__ import annotations

import pytest

from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import TokenCounter, token_counter
from tests.models.tiny_tokenizers import TOKENIZERS, counter


@pytest.fixture(
    scope="module",
    params=["package:all-minilm-l6-v2", "package:smollm2-135m-instruct", *TOKENIZERS],
)
def counts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    """Each kind of tokenizer that is counted by pieces."""
    if request.param.startswith("package:"):
        return token_counter(resolve(request.param))
    return counter(TOKENIZERS[request.param](), tmp_path_factory.mktemp("model"))
