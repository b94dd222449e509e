"""Specs against the models that they name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memorag_pipeline.preflight import check
from memorag_pipeline.spec import CorpusSpec

SMOLLM2, MINILM = "package:smollm2-135m-instruct", "package:all-minilm-l6-v2"
JOB = {"questions": {"uri": "questions.jsonl"}, "warehouse": {"database": "answers.duckdb"}}

MakeSpec = Callable[..., CorpusSpec]


def problems(make_spec: MakeSpec, **sections: Any) -> dict[str, str]:
    """Problems by key, of the spec of the tests with other sections."""
    found = check(make_spec("source", **sections), "kb.yaml")
    assert all(problem.file == "kb.yaml" for problem in found)
    return {problem.key: str(problem) for problem in found}


def model_folder(folder: Path, **config: Any) -> str:
    folder.mkdir()
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
    (tmp_path / "spec.json").write_text(make_spec("source").model_dump_json(), encoding="utf-8")
    code = (
        "import sys; from memorag_pipeline.preflight import check; from memorag_pipeline.spec import CorpusSpec;"
        "check(CorpusSpec.model_validate_json(open(sys.argv[1]).read()), 'f');"
        "assert not {'torch', 'transformers', 'FlagEmbedding', 'faiss'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "spec.json")], check=True)
