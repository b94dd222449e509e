"""GGUF to safetensors, once for each installed model package.

In:  a quantized GGUF file of a Llama-type model.
Out: a folder for transformers: bfloat16 safetensors, configuration, tokenizer with chat template; the same bytes
     in every environment.
Wrong: what transformers raises for a file it does not know.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from memorag_pipeline.models.file_digests import TOKENIZER_CONFIG, forget_loading


def convert_gguf(source: Path, folder: Path) -> None:
    """Write the model in `source` into the empty `folder`. Takes about 20 s for 135M parameters."""
    logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = loaded.config
    # The weights are dequantized by now, but the model still counts as quantized, and refuses to be saved.
    del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
    forget_loading(folder / TOKENIZER_CONFIG)
    _forget_release(folder / "config.json")
    _forget_release(folder / "generation_config.json")
    for path in folder.iterdir():
        path.chmod(0o644)


def _forget_release(path: Path) -> None:
    """Remove the transformers release from a configuration: a model's digest must not depend on it."""
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["transformers_version"]
    path.write_text(f"{json.dumps(values, indent=2, sort_keys=True)}\n", encoding="utf-8")
