"""The sparse layer of an embedding model of BGE-M3's kind: it weighs the tokens of a text for retrieval.

In:  the layer's file; the last hidden states of a batch, and its token ids.
Out: for each text its distinct tokens with their weights; special tokens and tokens of weight 0 are left out.
Wrong: a file that is not such a layer, or one of another model: `CorruptBlobError` that names it.

A token weighs relu(w·h + b) where h is its hidden state; a token that occurs several times has its largest weight
(Chen et al. 2024, arXiv 2402.03216, section 3.2; FlagEmbedding's `BGEM3FlagModel` gives the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.models.whole_weights import are_numbers
from memorag_pipeline.retrieval.terms import TokenWeights


class SparseLayer:
    """The layer in `path`, for hidden states of `dimensions` on `device`; computes in float32."""

    def __init__(self, path: Path, dimensions: int, special_ids: Sequence[int], device: str) -> None:
        self._linear = torch.nn.Linear(dimensions, 1)
        try:
            self._linear.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            problem = str(error).splitlines()[-1].strip()
            raise CorruptBlobError(f"{path}: not the sparse layer of this model ({problem}); make it again") from error
        if not all(are_numbers(parameter) for parameter in self._linear.parameters()):
            raise CorruptBlobError(f"{path}: there are values in it that are no numbers; fetch it again")
        self._linear.to(device).requires_grad_(False)
        self._special_ids = torch.tensor(special_ids, device=device)

    def __call__(self, hidden: torch.Tensor, token_ids: torch.Tensor) -> list[TokenWeights]:
        """Weights of a batch: `hidden` is float32 [texts, tokens, dimensions], `token_ids` [texts, tokens]."""
        weights = torch.relu(self._linear(hidden)).squeeze(-1)
        weights = weights.masked_fill(torch.isin(token_ids, self._special_ids), 0)
        return [_strongest(*text) for text in zip(token_ids.cpu().numpy(), weights.cpu().numpy(), strict=True)]


def _strongest(token_ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]) -> TokenWeights:
    weighty = weights > 0
    terms, places = np.unique(token_ids[weighty], return_inverse=True)
    strongest = np.zeros(len(terms), np.float32)
    np.maximum.at(strongest, places, weights[weighty])
    return TokenWeights(terms.astype(np.int32), strongest)
