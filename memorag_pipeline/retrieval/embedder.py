"""Texts to vectors with an embedding model that pools the last hidden states, on the GPU if there is one.

In:  passages or questions.
Out: normalized float32 vectors [texts, dimensions]; a text's vector does not depend on the other texts. A model with a
     sparse layer also gives the weights of a text's tokens, from the same pass.
Wrong: an unknown model is a NotFoundError (from `models.resolve`), one with incomplete weights a ModelError; a text
       over `max_tokens` is truncated.

transformers loads the model and the tokenizer; tests compare the vectors with those of sentence-transformers and
FlagEmbedding, which load them in the same way and bring packages that nothing else here needs.

The CPU computes in float32. Measured with MiniLM on 2 cores: where the processor has bfloat16 instructions, bfloat16 is
1.7 times as fast (62 against 36 chunks/s); without them it takes 1.6 times as long, and it moves a vector by up to
2.5e-3, so vectors would depend on the worker. A GPU computes in bfloat16, which has float32's range, so no model
overflows in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.machine.forks import one_thread_after_fork, require_device
from memorag_pipeline.models.loading import loaded_once
from memorag_pipeline.models.pooling import settled
from memorag_pipeline.models.references import SPARSE_LAYER, ResolvedModel, resolve
from memorag_pipeline.models.whole_weights import POOLER, load_whole, require_tokens
from memorag_pipeline.retrieval.sparse_layer import SparseLayer
from memorag_pipeline.retrieval.terms import TokenWeights
from memorag_pipeline.specs.retrieval import EmbeddingSpec

Vectors = npt.NDArray[np.float32]


_GPU_LENGTH_STEP = 16


class Encoder(NamedTuple):
    """transformers' model and tokenizer."""

    model: Any
    tokenizer: Any


def load_embedder(spec: EmbeddingSpec) -> Embedder:
    """The embedder that `spec` names; its weights are read once per process."""
    require_device()
    spec = settled(spec)
    resolved = resolve(spec.model, spec.revision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, sparse_layer = _load(resolved, device)
    length_step = 1 if device == "cpu" else _GPU_LENGTH_STEP
    return Embedder(model, resolved.digest, spec, device, length_step, sparse_layer)


class Embedder:
    """An embedding model with its pooling. `model_digest` covers weights and configuration.

    A matrix kernel's result for a text can change with the shape of its batch, so the shape depends only on the text.
    A `length_step` of 1, for the CPU, computes each text by itself, without padding (measured with MiniLM and chunks of
    100 to 200 tokens: 10 % more time than with texts of one length together). A larger one, for the GPU, pads lengths
    to its multiples and fills each batch up to `spec.batch_size` rows.
    """

    def __init__(
        self,
        model: Encoder,
        model_digest: str,
        spec: EmbeddingSpec,
        device: str,
        length_step: int,
        sparse_layer: SparseLayer | None = None,
    ) -> None:
        self.model_digest = model_digest
        self.dimensions = int(model.model.config.hidden_size)
        self._model, self._spec = model, spec
        self._device, self._length_step, self._sparse_layer = device, length_step, sparse_layer

    def embed_passages(self, texts: Sequence[str], advance: Callable[[float], None] | None = None) -> Vectors:
        """Vectors of passages; `advance` receives the number of further texts done."""
        return self._embed(texts, None, advance)[0]

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, each after the spec's `query_instruction`."""
        return self._embed(self._instructed(texts), None, None)[0]

    def weigh_passages(
        self, texts: Sequence[str], advance: Callable[[float], None] | None = None
    ) -> tuple[Vectors, list[TokenWeights]]:
        """Vectors of passages, and weights of their tokens. Raises NotFoundError if the model has no sparse layer."""
        return self._embed(texts, self._layer(), advance)

    def weigh_queries(self, texts: Sequence[str]) -> tuple[Vectors, list[TokenWeights]]:
        """Like `weigh_passages`, for questions, each after the spec's `query_instruction`."""
        return self._embed(self._instructed(texts), self._layer(), None)

    def _instructed(self, texts: Sequence[str]) -> list[str]:
        return [self._spec.query_instruction + text for text in texts]

    def _layer(self) -> SparseLayer:
        if self._sparse_layer is None:
            raise NotFoundError(
                f"embedding model {self._spec.model} has no {SPARSE_LAYER}; give one that has, or use sparse: bm25"
            )
        return self._sparse_layer

    def _embed(
        self, texts: Sequence[str], layer: SparseLayer | None, advance: Callable[[float], None] | None
    ) -> tuple[Vectors, list[TokenWeights]]:
        """Vectors of texts; with a `layer` the weights of their tokens, too."""
        vectors, weights = np.empty((len(texts), self.dimensions), np.float32), dict[int, TokenWeights]()
        if not texts:
            return vectors, []
        encoded = self._model.tokenizer(list(texts), truncation=True, max_length=self._spec.max_tokens)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        for length, rows in self._batches(lengths):
            filled = rows
            if self._length_step > 1:
                filled = rows + rows[:1] * (self._spec.batch_size - len(rows))
            inputs = {name: [values[row] for row in filled] for name, values in encoded.items()}
            pooled, weighed = self._forward(inputs, length, layer)
            vectors[rows] = pooled[: len(rows)]
            weights.update(zip(rows, weighed, strict=False))  # rows that pad a batch come last
            if advance:
                advance(len(rows))
        return vectors, [weights[row] for row in range(len(weights))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Padded length and rows of each batch, longest first, so a batch too large for the memory fails at once."""
        step = self._length_step
        by_length: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            by_length.setdefault(min(-(-length // step) * step, self._spec.max_tokens), []).append(row)
        size = self._spec.batch_size if step > 1 else 1
        for length in sorted(by_length, reverse=True):
            rows = by_length[length]
            yield from ((length, rows[start : start + size]) for start in range(0, len(rows), size))

    @torch.inference_mode()
    def _forward(
        self, inputs: dict[str, list[list[int]]], length: int, layer: SparseLayer | None
    ) -> tuple[Vectors, list[TokenWeights]]:
        padded = self._model.tokenizer.pad(inputs, padding="max_length", max_length=length, return_tensors="pt")
        padded = padded.to(self._device)
        hidden = self._model.model(**padded, return_dict=True).last_hidden_state.float()
        pooled = _POOLED[str(self._spec.pooling)](hidden, padded["attention_mask"])
        normalized: Vectors = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return normalized, [] if layer is None else layer(hidden, padded["input_ids"])


def _first(hidden: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask.unsqueeze(-1).float()).sum(dim=1) / mask.sum(dim=1, keepdim=True).float()


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of each text's last token, whichever side is padded."""
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


# From hidden states [texts, tokens, dimensions] and the attention mask [texts, tokens] to vectors.
_POOLED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "mean": _mean,
    "last_token": _last,
}


@functools.partial(loaded_once, kept=2)
def _load(resolved: ResolvedModel, device: str) -> tuple[Encoder, SparseLayer | None]:
    """The model on `device`, and its sparse layer if it has one; a changed folder is read again."""
    one_thread_after_fork(torch.set_num_threads)
    folder, dtype = resolved.folder, torch.float32 if device == "cpu" else torch.bfloat16
    with quiet():
        model = load_whole(AutoModel, folder, resolved.name, spare=POOLER, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    require_tokens(model, folder, resolved.name)
    model.to(device).eval().requires_grad_(False)
    path, size = folder / SPARSE_LAYER, model.config.hidden_size
    layer = SparseLayer(path, size, tokenizer.all_special_ids, device) if path.exists() else None
    return Encoder(model, tokenizer), layer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bar and load report off the screen, which belongs to the pipeline's own progress."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
