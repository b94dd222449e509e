"""Pairs of question and passage to scores, with a cross-encoder, on the GPU if there is one.

In:  questions and, for each, passages.
Out: a float for each pair, higher for a better passage; except for rounding, independent of the other pairs.
Wrong: an unknown model is a NotFoundError (from `models.resolve`), one with incomplete weights a ModelError; a pair
       over `max_tokens` loses the passage's end.

As with embeddings, on the CPU pairs of one length are read together; a GPU pads them to the longest of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from memorag_pipeline.machine.forks import one_thread_after_fork, require_device
from memorag_pipeline.models.loading import loaded_once
from memorag_pipeline.models.references import ResolvedModel, resolve
from memorag_pipeline.models.whole_weights import load_whole, require_tokens
from memorag_pipeline.retrieval.embedder import Encoder, quiet
from memorag_pipeline.specs.retrieval import RerankerSpec

_GPU_LENGTH_STEP = 64


def load_reranker(spec: RerankerSpec) -> Reranker:
    """The reranker that `spec` names; its weights are read once per process."""
    require_device()
    one_thread_after_fork(torch.set_num_threads)
    resolved = resolve(spec.model, spec.revision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Reranker(_load(resolved, device), spec, device)


class Reranker:
    """A cross-encoder with one score for a pair."""

    def __init__(self, loaded: Encoder, spec: RerankerSpec, device: str) -> None:
        self._tokenizer, self._model = loaded.tokenizer, loaded.model
        self._spec, self._device = spec, device
        self._step = 1 if device == "cpu" else _GPU_LENGTH_STEP

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The model's score of each (question, passage)."""
        if not pairs:
            return []
        questions, passages = zip(*pairs, strict=True)
        # A question of the model's full length leaves no room for a passage: it is truncated first.
        encoded = self._tokenizer(
            [self._cut(question) for question in questions],
            list(passages),
            truncation="only_second",
            max_length=self._spec.max_tokens,
        )
        steps = [-(-len(ids) // self._step) for ids in encoded["input_ids"]]
        scores = [0.0] * len(pairs)
        for _, same in groupby(sorted(range(len(pairs)), key=lambda pair: -steps[pair]), lambda pair: steps[pair]):
            together = list(same)
            for start in range(0, len(together), self._spec.batch_size):
                batch = together[start : start + self._spec.batch_size]
                inputs = {name: [values[pair] for pair in batch] for name, values in encoded.items()}
                for pair, score in zip(batch, self._forward(inputs), strict=True):
                    scores[pair] = score
        return scores

    def _cut(self, question: str) -> str:
        most = self._spec.max_tokens // 2
        offsets = self._tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= most else question[: offsets[most - 1][1]]

    @torch.inference_mode()
    def _forward(self, inputs: dict[str, list[list[int]]]) -> list[float]:
        padded = self._tokenizer.pad(inputs, return_tensors="pt").to(self._device)
        scores: list[float] = self._model(**padded, return_dict=True).logits.view(-1).float().tolist()
        return scores


@functools.partial(loaded_once, kept=1)
def _load(resolved: ResolvedModel, device: str) -> Encoder:
    """The model on `device`; a changed folder is read again. On a GPU, bfloat16: half the size, float32's range."""
    folder, dtype = resolved.folder, torch.float32 if device == "cpu" else torch.bfloat16
    with quiet():
        model = load_whole(AutoModelForSequenceClassification, folder, resolved.name, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    require_tokens(model, folder, resolved.name)
    model.to(device).eval().requires_grad_(False)
    return Encoder(model, tokenizer)
