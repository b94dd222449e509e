"""Folders of small models that differ from a good one as the field's do.

Each function makes, of the folder of a good decoder of one layer, the folder that a case describes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 5368709120\n"
)
KEEPS_SYSTEM = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}<|im_start|>assistant\n"
)
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + KEEPS_SYSTEM
    + "<|im_start|>assistant\n"
)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; a value of None takes the key out."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), encoding="utf-8")


def _tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(folder / WEIGHTS)
    return tensors


def _save(tensors: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt"})


def _foreign_prefix(folder: Path) -> None:
    _save({f"base_model.model.{name}": tensor for name, tensor in _tensors(folder).items()}, folder / WEIGHTS)


def _without_down_proj(folder: Path) -> None:
    kept = {name: tensor for name, tensor in _tensors(folder).items() if "down_proj" not in name}
    assert len(kept) < len(_tensors(folder))
    _save(kept, folder / WEIGHTS)


def _not_numbers(folder: Path) -> None:
    tensors = _tensors(folder)
    tensors["model.norm.weight"][0] = float("nan")
    _save(tensors, folder / WEIGHTS)


def _pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text(POINTER, encoding="utf-8")


def _two_shards(folder: Path) -> None:
    tensors = _tensors(folder)
    names, place = sorted(tensors), {}
    for number, part in ((1, names[::2]), (2, names[1::2])):
        file = f"model-{number:05d}-of-00002.safetensors"
        _save({name: tensors[name] for name in part}, folder / file)
        place |= dict.fromkeys(part, file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / WEIGHTS).unlink()


def _one_shard_of_two(folder: Path) -> None:
    _two_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _awq(folder: Path) -> None:
    import torch

    tensors = _tensors(folder)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        stem = name.removesuffix("weight")
        rows, columns = tensors.pop(name).shape
        tensors[f"{stem}qweight"] = torch.zeros(columns, rows // 8 or 1, dtype=torch.int32)
        tensors[f"{stem}qzeros"] = torch.zeros(1, rows // 8 or 1, dtype=torch.int32)
        tensors[f"{stem}scales"] = torch.ones(1, rows, dtype=torch.float16)
    _save(tensors, folder / WEIGHTS)
    quantization = {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm", "zero_point": True}
    edit_json(folder / "config.json", quantization_config=quantization)


def _pickled(folder: Path) -> None:
    import torch

    torch.save(_tensors(folder), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def _without_fast_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _template(text: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        edit_json(folder / "tokenizer_config.json", chat_template=text)

    return change


def _bare(folder: Path) -> None:
    _template(None)(folder)
    edit_json(folder / "tokenizer_config.json", pad_token=None)
    edit_json(folder / "config.json", pad_token_id=None)


def _templates_by_name(folder: Path) -> None:
    ending = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    templates = [
        {"name": "default", "template": KEEPS_SYSTEM + ending},
        {"name": "tool_use", "template": KEEPS_SYSTEM + ending},
    ]
    edit_json(folder / "tokenizer_config.json", chat_template=templates)


def _adds_bos(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    token = next(each for each in values["added_tokens"] if each["content"] == "<|im_start|>")
    first, text = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [token["id"]], "tokens": ["<|im_start|>"]}},
    }
    path.write_text(json.dumps(values), encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", add_bos_token=True)


def _two_ends(folder: Path) -> None:
    edit_json(folder / "config.json", eos_token_id=[2, 0])


def _yarn(folder: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
    edit_json(folder / "config.json", rope_scaling=scaling, rope_parameters={**scaling, "rope_theta": 10_000.0})


def _other_decoder(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="gemma3_text", architectures=["Gemma3ForCausalLM"])


CHANGES: dict[str, Callable[[Path], None]] = {
    "peft_prefix": _foreign_prefix,
    "missing_weights": _without_down_proj,
    "nan_weights": _not_numbers,
    "lfs_pointer": _pointer,
    "shard_missing": _one_shard_of_two,
    "sharded": _two_shards,
    "awq": _awq,
    "bin_only": _pickled,
    "slow_only": _without_fast_tokenizer,
    "drops_system": _template(DROPS_SYSTEM),
    "no_system": _template(REFUSES_SYSTEM),
    "no_template": _bare,
    "template_list": _templates_by_name,
    "adds_bos": _adds_bos,
    "eos_list": _two_ends,
    "rope_yarn": _yarn,
    "gemma3": _other_decoder,
}
