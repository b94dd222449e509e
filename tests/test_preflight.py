"""Specs against the models that they name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from memorag_pipeline import preflight
from memorag_pipeline.errors import ModelError, SpecError
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.preflight import check, notes
from memorag_pipeline.specs.corpus import CorpusSpec

SMOLLM2, MINILM = "package:smollm2-135m-instruct", "package:all-minilm-l6-v2"
JOB = {"questions": {"uri": "questions.jsonl"}, "warehouse": {"database": "answers.duckdb"}}

MakeSpec = Callable[..., CorpusSpec]


def problems(make_spec: MakeSpec, **sections: Any) -> dict[str, str]:
    """Problems by key, of the spec of the tests with other sections."""
    found = check(make_spec("source", **sections), "kb.yaml")
    assert all(problem.file == "kb.yaml" for problem in found)
    return {problem.key: str(problem) for problem in found}


def model_folder(folder: Path, **config: Any) -> str:
    """A folder whose weights and tokenizer can be read, and say nothing."""
    folder.mkdir()
    save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}', encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_a_spec_that_fits_its_models_has_no_problems(make_spec: MakeSpec) -> None:
    assert problems(make_spec) == {}


def test_a_shard_must_leave_room_for_prompt_and_clues(make_spec: MakeSpec) -> None:
    for clue_tokens in (64, 200):
        jobs = {"daily": {**JOB, "clue_tokens": 8}, "weekly": {**JOB, "clue_tokens": clue_tokens}}
        room = 8192 - 512 - clue_tokens
        assert problems(make_spec, sharding={"max_tokens": room}, jobs=jobs) == {}
        message = problems(make_spec, sharding={"max_tokens": room + 1}, jobs=jobs)["sharding.max_tokens"]
        assert f"(found {room + 1}); use at most {room}" in message


@pytest.mark.parametrize(
    ("memory", "ratio", "kept"),
    [
        ({"kind": "beacon", "ratio": 4, "window": 256}, 4, 256 + 64),
        ({"kind": "beacon", "ratio": 3, "window": 256, "sink": 4}, 3, 256 + 86 + 4),
        ({"kind": "beacon", "ratio": [8, 4, 16], "window": 256}, 4, 256 + 64),
        ({"kind": "beacon", "ratio": [0, 8], "window": 256}, 8, 256 + 32),
        ({"kind": "beacon", "ratio": 0, "window": 256}, 1, 0),
        ({"kind": "beacon"}, 4, 1024 + 256),
        ({"kind": "selected", "window": 256, "ratio": 8}, 1, 0),
    ],
    ids=str,
)
def test_of_a_compressed_shard_the_slots_must_fit(
    make_spec: MakeSpec, memory: dict[str, Any], ratio: int, kept: int
) -> None:
    memory = {"model": SMOLLM2, **memory}
    room = (8192 - 512 - kept) * ratio
    assert problems(make_spec, memory=memory, sharding={"max_tokens": room}) == {}
    found = problems(make_spec, memory=memory, sharding={"max_tokens": room + 1})
    assert f"use at most {room}" in found["sharding.max_tokens"]
    assert (f"{kept} for the open window, and {ratio} tokens share a slot" in found["sharding.max_tokens"]) == bool(
        kept
    )


@pytest.mark.parametrize(("window", "gist"), [(128, 32), (1024, 128)])
def test_of_a_summarized_shard_the_summaries_must_fit(make_spec: MakeSpec, window: int, gist: int) -> None:
    assert gist_tokens(window) == gist
    memory = {"model": SMOLLM2, "kind": "gist", "window": window}
    room = (8192 - 512) // gist * window
    assert problems(make_spec, memory=memory, sharding={"max_tokens": room}) == {}
    found = problems(make_spec, memory=memory, sharding={"max_tokens": room + 1})
    assert f"{window} tokens take {gist} of a summary (found {room + 1}); use at most {room}" in found.popitem()[1]


@pytest.mark.parametrize("kind", ["beacon", "gist"])
def test_a_window_that_fills_the_context_is_told(make_spec: MakeSpec, kind: str) -> None:
    found = problems(make_spec, memory={"model": SMOLLM2, "kind": kind, "window": 8192})
    assert "use a memory model with a longer context, or a smaller memory.window" in found["sharding.max_tokens"]


def adapter(folder: Path, **metadata: str) -> str:
    save_file({"model.beacon_embed_tokens.weight": np.zeros((1, 4), np.float32)}, folder / "adapter", metadata)
    return str(folder / "adapter")


def test_an_adapter_says_what_is_left_out_in_the_spec(make_spec: MakeSpec, tmp_path: Path) -> None:
    path = adapter(tmp_path, beacon_window="512", beacon_ratio="8 16", beacon_sink_size="2")
    memory = {"kind": "beacon", "model": SMOLLM2, "adapter": path}
    room = (8192 - 512 - 512 - 64 - 2) * 8
    assert problems(make_spec, memory=memory, sharding={"max_tokens": room}) == {}
    assert f"use at most {room}" in problems(make_spec, memory=memory, sharding={"max_tokens": room + 1}).popitem()[1]

    assert problems(make_spec, memory={**memory, "window": 500}) == {}  # a single ratio need not divide it
    found = problems(make_spec, memory={**memory, "ratio": [3, 5]})
    assert "has no ratio that divides the window of 512 tokens" in found["memory.ratio"]
    assert problems(make_spec, memory={**memory, "ratio": 3}) == {}
    path = adapter(tmp_path, beacon_window="16")
    assert "is larger than the window of 16" in problems(make_spec, memory={**memory, "sink": 32})["memory.sink"]


def test_attended_beacons_need_room_for_a_second_reading(make_spec: MakeSpec, tmp_path: Path) -> None:
    path = adapter(tmp_path, beacon_window="512", beacon_ratio="8", beacon_pos="attended", beacon_param="k v")
    memory = {"kind": "beacon", "model": SMOLLM2, "adapter": path}
    room = (8192 - 512 - 2 * 512) * 8
    assert problems(make_spec, memory=memory, sharding={"max_tokens": room}) == {}
    assert f"use at most {room}" in problems(make_spec, memory=memory, sharding={"max_tokens": room + 1}).popitem()[1]


def test_an_adapter_that_cannot_be_used_is_told(make_spec: MakeSpec, tmp_path: Path) -> None:
    memory = {"kind": "beacon", "model": SMOLLM2}
    missing = str(tmp_path / "no adapter")
    found = problems(make_spec, memory={**memory, "adapter": missing})
    assert set(found) == {"memory.adapter"}
    assert f"{missing}: cannot be read (FileNotFoundError)" in found["memory.adapter"]
    (tmp_path / "damaged").write_bytes(b"not an adapter")
    found = problems(make_spec, memory={**memory, "adapter": str(tmp_path / "damaged")})
    assert "not a safetensors file" in found["memory.adapter"]
    found = problems(make_spec, memory={**memory, "adapter": adapter(tmp_path, beacon_pos="append")})
    assert "beacon_pos 'append' is not supported" in found["memory.adapter"]
    found = problems(make_spec, memory={**memory, "adapter": adapter(tmp_path, beacon_window="wide")})
    assert "beacon_window 'wide' is not made of whole numbers" in found["memory.adapter"]


def test_a_checkpoint_of_another_mode_is_told(make_spec: MakeSpec, tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "max_position_embeddings": 32768}
    usual = {"beacon_window": 2048, "beacon_stride": 2048, "beacon_ratio": [2, 4, 8], "beacon_pos": "interleave"}
    model = model_folder(tmp_path / "usual", **config, **usual)
    assert problems(make_spec, memory={"kind": "beacon", "model": model}) == {}
    model = model_folder(tmp_path / "other", **config, **usual | {"beacon_attn": "step-expansion"})
    found = problems(make_spec, memory={"kind": "beacon", "model": model})
    assert "beacon_attn 'step-expansion' is not supported" in found["memory.model"]
    assert problems(make_spec, memory={"kind": "selected", "model": model}) == {}


def test_a_model_that_is_too_small_for_any_shard_is_told(make_spec: MakeSpec, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "small", model_type="llama", max_position_embeddings=512)
    found = problems(make_spec, memory={"model": model})
    assert "use a memory model with a longer context" in found["sharding.max_tokens"]
    assert "use a generation model with a longer context" in found["generation.evidence_tokens"]


def test_evidence_must_fit_the_generator(make_spec: MakeSpec) -> None:
    generation = {"evidence_tokens": 8000, "max_new_tokens": 100}
    found = problems(make_spec, generation=generation)
    assert f"use at most {8192 - 512 - 100}" in found["generation.evidence_tokens"]
    assert SMOLLM2 in found["generation.evidence_tokens"]


def test_summaries_and_what_is_merged_into_them_must_fit_the_generator(make_spec: MakeSpec) -> None:
    def found(tokens: int) -> dict[str, str]:
        job = {"kind": "summaries", "warehouse": JOB["warehouse"], "summaries": {"summary_tokens": tokens}}
        return problems(make_spec, jobs={"reports": job})

    most = (8192 - 512) // 3
    assert found(most) == {}
    assert f"{2 * (most + 1)} for what is summarized" in found(most + 1)["jobs.reports.summaries.summary_tokens"]


def test_weights_of_a_model_need_its_sparse_layer(make_spec: MakeSpec, tmp_path: Path) -> None:
    found = problems(make_spec, retrieval={"sparse": "model"})
    assert set(found) == {"retrieval.sparse"}
    assert f"{MINILM} has no sparse_linear.safetensors that can be read" in found["retrieval.sparse"]
    assert "use bm25, or a model with one, such as BAAI/bge-m3" in found["retrieval.sparse"]
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1, "hidden_size": 4}
    model = model_folder(tmp_path / "m3", **config)
    sections = {"retrieval": {"sparse": "model"}, "embedding": {"model": model}}
    for width, message in ((3, "is not that of a model with 4 dimensions"), (4, "")):
        layer = {"weight": np.zeros((1, width), np.float32), "bias": np.zeros(1, np.float32)}
        save_file(layer, tmp_path / "m3" / "sparse_linear.safetensors")
        assert message in problems(make_spec, **sections).get("retrieval.sparse", "")
    assert problems(make_spec, **sections) == {}


def test_embedding_tokens_must_fit_the_model(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert problems(make_spec, embedding={"model": MINILM, "max_tokens": 512}) == {}
    found = problems(make_spec, embedding={"model": MINILM, "max_tokens": 513})
    assert "(found 513); use at most 512" in found["embedding.max_tokens"]
    roberta = model_folder(tmp_path / "r", model_type="xlm-roberta", max_position_embeddings=514, pad_token_id=1)
    assert problems(make_spec, embedding={"model": roberta, "max_tokens": 512}) == {}
    assert (
        "use at most 512"
        in problems(make_spec, embedding={"model": roberta, "max_tokens": 513})["embedding.max_tokens"]
    )


def test_every_unknown_model_is_told_at_once(make_spec: MakeSpec) -> None:
    found = problems(
        make_spec,
        memory={"model": "package:nothing"},
        embedding={"model": "/no/such/folder"},
        generation={"model": "someone/unknown"},
    )
    assert set(found) == {"memory.model", "embedding.model", "generation.model"}
    assert "known: package:smollm2-135m-instruct" in found["memory.model"]


def test_a_model_that_is_no_decoder_is_told(make_spec: MakeSpec) -> None:
    found = problems(make_spec, memory={"model": MINILM})
    assert set(found) == {"memory.model"}
    assert "'bert', which cannot hold a memory" in found["memory.model"]


def test_checking_imports_nothing_heavy(make_spec: MakeSpec, tmp_path: Path) -> None:
    memory = {"kind": "beacon", "model": SMOLLM2, "adapter": adapter(tmp_path, beacon_window="64")}
    (tmp_path / "spec.json").write_text(make_spec("source", memory=memory).model_dump_json(), encoding="utf-8")
    code = (
        "import sys; from memorag_pipeline.preflight import check;"
        "from memorag_pipeline.specs.corpus import CorpusSpec;"
        "spec = CorpusSpec.model_validate_json(open(sys.argv[1]).read()); assert check(spec, 'f') == [];"
        "assert not {'torch', 'transformers', 'FlagEmbedding', 'faiss'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "spec.json")], check=True)


def test_models_that_are_not_whole_are_told_by_their_keys(
    make_spec: MakeSpec, tmp_path: Path, tiny_models: dict[str, Any]
) -> None:
    def copied(name: str) -> tuple[Path, dict[str, Any]]:
        folder = Path(shutil.copytree(tiny_models[name]["model"], tmp_path / f"{len(list(tmp_path.iterdir()))}"))
        return folder, {**tiny_models[name], "model": str(folder)}

    sections = {"memory": tiny_models["memory"], "embedding": tiny_models["embedding"]}
    assert problems(make_spec, **sections) == {}
    for name in sections:
        folder, section = copied(name)
        tensors = load_file(folder / "model.safetensors")
        save_file({f"base_model.{key}": value for key, value in tensors.items()}, folder / "model.safetensors")
        found = problems(make_spec, **sections | {name: section})
        assert set(found) == {f"{name}.model"}
        assert "all names begin with 'base_model.'" in found[f"{name}.model"]

        folder, section = copied(name)
        (folder / "tokenizer.json").unlink()
        assert "there is no tokenizer.json" in problems(make_spec, **sections | {name: section})[f"{name}.model"]

        folder, section = copied(name)
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 60_000, "content": "<new>"})
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        assert "its tokenizer has token 60,000" in problems(make_spec, **sections | {name: section})[f"{name}.model"]

    folder, section = copied("memory")
    (folder / "model.safetensors").unlink()
    found = problems(make_spec, **sections, generation={"model": str(folder)})
    assert set(found) == {"generation.model"}
    error = SpecError(check(make_spec("source", **sections, generation={"model": str(folder)}), "kb.yaml"))
    assert error.exit_code == ModelError.exit_code
    wrong = check(make_spec("source", **sections, generation={"model": str(folder), "evidence_tokens": 10**6}), "kb")
    assert SpecError(wrong).exit_code == SpecError.exit_code


def test_a_ratio_that_the_beacons_were_not_trained_for_is_noted(make_spec: MakeSpec) -> None:
    def noted(**memory: Any) -> list[str]:
        beacon = {"kind": "beacon", "model": SMOLLM2, "adapter": "package:smollm2-135m-beacon", **memory}
        return notes(make_spec("docs", memory=beacon))

    assert noted() == noted(ratio=16) == noted(ratio=[2, 4, 8]) == []
    (note,) = noted(ratio=64)
    assert note.startswith("memory.ratio 64: package:smollm2-135m-beacon was trained for 4, 2, 8, 16")
    assert notes(make_spec("docs", memory={"kind": "selected", "model": SMOLLM2, "ratio": 64})) == []


def test_connections_are_noted_where_there_is_no_airflow(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("docs", store={"uri": "s3://lake/kb", "connection_id": "lake"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "airflow" else find_spec(name))
    (note,) = notes(spec)
    assert note.startswith("connection_id lake: Airflow is not installed here")
    assert notes(make_spec("docs")) == []


def test_a_spec_may_give_more_positions_and_scale_the_rotation(make_spec: MakeSpec, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "qwen2", model_type="qwen2", max_position_embeddings=32768)
    memory = {"kind": "beacon", "model": model, "ratio": 4, "window": 2048}
    sharding = {"max_tokens": 400_000}
    told = problems(make_spec, memory=memory, sharding=sharding)["sharding.max_tokens"]
    assert "its context is 32768 positions" in told and "or give memory.context" in told
    for fields in ({"context": 131072}, {"context": 131072, "rope_scaling": "yarn"}):
        assert problems(make_spec, memory={**memory, **fields}, sharding=sharding) == {}
    room = (131072 - 512 - 2048 - 512) * 4
    found = problems(make_spec, memory={**memory, "context": 131072}, sharding={"max_tokens": room + 1})
    assert f"use at most {room}" in found["sharding.max_tokens"]
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    scaled = model_folder(tmp_path / "scaled", model_type="qwen2", max_position_embeddings=32768, rope_scaling=yarn)
    assert problems(make_spec, memory={**memory, "model": scaled}, sharding=sharding) == {}

    def noted(**fields: Any) -> list[str]:
        return notes(make_spec("docs", memory={**memory, "ratio": None, **fields}))

    assert (
        noted(context=32768) == noted(context=131072, rope_scaling="yarn") == noted(model=scaled, context=99_999) == []
    )
    (note,) = noted(context=131072)
    assert "has 32768 positions by its config.json" in note and "rope_scaling: yarn" in note


def test_a_rope_scaling_that_cannot_be_is_told(make_spec: MakeSpec, tmp_path: Path) -> None:
    memory = {"kind": "beacon", "model": SMOLLM2}
    found = problems(make_spec, memory={**memory, "context": 8192, "rope_scaling": "yarn"})
    assert "8192 is not more than the 8192 positions" in found["memory.rope_scaling"]
    trained = adapter(tmp_path, beacon_rope_scaling="yarn 2 of 8192")
    fields = {"adapter": trained, "context": 16384, "rope_scaling": "yarn"}
    assert problems(make_spec, memory={**memory, **fields}) == {}
    found = problems(make_spec, memory={**memory, "adapter": trained})
    assert "was trained with the rope scaling yarn 2 of 8192, but the memory has none" in found["memory.rope_scaling"]
    (note,) = notes(make_spec("docs", memory={**memory, **fields, "adapter": adapter(tmp_path)}))
    assert "was trained without it" in note
    with pytest.raises(ValueError, match="does not say to how many positions"):
        make_spec("docs", memory={**memory, "rope_scaling": "yarn"})


def test_an_index_on_a_gpu_needs_some_build_of_faiss_for_it(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []

    def found(name: str) -> None:
        if name not in installed:
            raise PackageNotFoundError(name)

    monkeypatch.setattr(preflight, "distribution", found)
    assert "has no Faiss for GPUs" in problems(make_spec, index={"device": "gpu"})["index.device"]
    for name in ("faiss-gpu", "faiss-gpu-cu13-cuvs"):
        installed[:] = [name]
        assert problems(make_spec, index={"device": "gpu"}) == {}
