"""Folders of models with a vocabulary of a few words, as their publishers lay them out; made in no time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    MistralConfig,
    Qwen2Config,
    XLMRobertaConfig,
)

WORDS = ["a", "quay", "is", "a", "wall", "where", "ships", "tie", "up", "and", "are", "unloaded", "what"]
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(WORDS)]
_SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
Tensors = dict[str, torch.Tensor]


def write_tokenizer(folder: Path, **config: Any) -> None:
    """A tokenizer of words in both files that transformers reads."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(VOCABULARY[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    values = {"tokenizer_class": "PreTrainedTokenizerFast", **marks, "cls_token": "<s>", "sep_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


def decoder(folder: Path, kind: str = "mistral", **config: Any) -> Path:
    """A decoder; "qwen2" has biases."""
    make = {"mistral": MistralConfig, "qwen2": Qwen2Config}[kind]
    values = {"num_key_value_heads": 1, "vocab_size": len(VOCABULARY), "max_position_embeddings": 512, **_SIZES, **_IDS}
    return _save(AutoModelForCausalLM.from_config(make(**values | config)), folder)


def encoder(folder: Path, kind: str = "bert") -> Path:
    """A BERT, or an "xlm-roberta"."""
    return _save(AutoModel.from_config(_encoder(kind)), folder)


def cross_encoder(folder: Path) -> Path:
    """An XLM-RoBERTa with one score."""
    return _save(AutoModelForSequenceClassification.from_config(_encoder("xlm-roberta", num_labels=1)), folder)


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    """Other tensors in the weights of a model."""
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    """Other keys in a model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def shard(folder: Path, suffix: str = "safetensors") -> list[str]:
    """The weights in two files and an index; returns their names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, places = [f"{stem}-{number:05d}-of-00002.{suffix}" for number in (1, 2)], {}
    for name, part in zip(names, (sorted(tensors)[::2], sorted(tensors)[1::2]), strict=True):
        own = {key: tensors[key] for key in part}
        if suffix == "safetensors":
            save_file(own, folder / name, metadata={"format": "pt"})
        else:
            torch.save(own, folder / name)
        places |= dict.fromkeys(part, name)
    index = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return names


def pickle_weights(folder: Path) -> None:
    """The weights as older models have them."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def publish(folder: Path, model: str, cache: Path, commit: str = "0123456789abcdef0123456789abcdef01234567") -> Path:
    """The model in a cache of the hub, as if it had been fetched by its id; returns its snapshot."""
    repository = cache / f"models--{model.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="ascii")
    return repository / "snapshots" / commit


def _encoder(kind: str, **more: Any) -> Any:
    make = {"bert": BertConfig, "xlm-roberta": XLMRobertaConfig}[kind]
    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 66, "type_vocab_size": 1, **_SIZES, **_IDS}
    return make(**sizes, **more)


def _save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder
