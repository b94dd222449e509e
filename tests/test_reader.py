"""What the extra `reader` installs opens, searches and asks a version; what it lacks is named with its extra.

Each script runs in a process that finds no module of a package outside of the reader's requirements and theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tests.generators.chat_server import ChatServer

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Parts of nothing that is declared: what an environment is made with, and what makes this checkout importable.
SPARE = {"memorag-pipeline", "pip"}
READER = """
import importlib, json, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in ABSENT else PathFinder.find_spec(fullname, path, target)

ABSENT = set(json.loads(sys.argv[1]))
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
ASK = """
from memorag_pipeline import GenerationSpec, open_version

version = open_version(sys.argv[2])
generation = GenerationSpec.model_validate(json.loads(sys.argv[3]))
(answer,) = version.answer("Who holds hands?", mode="retrieval_only", generation=generation)
for kind in ("beacon", "full", "gist", "selected"):  # what recalls clues; to load a model would take long
    importlib.import_module(f"memorag_pipeline.memory.kinds.{kind}")
print(json.dumps({
    "documents": len(list(version.documents())),
    "found": version.search("Who holds hands?", k=1)[0].uri,
    "answer": [answer.answer, answer.error, len(answer.evidence)],
}))
"""
COMMANDS = """
from typer.testing import CliRunner
from memorag_pipeline.cli.app import app

results = []
for command in json.loads(sys.argv[2]):
    done = CliRunner().invoke(app, command, env={"COLUMNS": "500"})
    results.append([done.exit_code, done.output])
print(json.dumps(results))
"""


def closure(lines: list[str]) -> set[str]:
    """The distributions that these requirements name, and those that they require in turn."""
    seen, left = set[tuple[str, str]](), [Requirement(line) for line in lines]
    while left:
        requirement = left.pop()
        for extra in {"", *requirement.extras}:
            if (key := (canonicalize_name(requirement.name), extra)) not in seen:
                seen.add(key)
                asked = map(Requirement, distribution(requirement.name).requires or [])
                left += [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def absent() -> list[str]:
    """Top-level modules of the packages here that a reader does not have."""
    kept = closure([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["reader"]]) | SPARE
    models = {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"]["demo"]}
    found = packages_distributions().items()
    return [module for module, names in found if not {canonicalize_name(name) for name in names} & (kept | models)]


def run(script: str, absent: list[str], *arguments: str) -> Any:
    command = [sys.executable, "-c", READER + script, json.dumps(absent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_reader_does_not_have(absent: list[str]) -> None:
    """A guard for the others: they prove nothing about packages that they do not hide."""
    heavy = "airflow adbc_driver_postgresql datasets duckdb FlagEmbedding html_to_markdown matplotlib"
    heavy += " olefile pandas pypdfium2 rouge_score scipy sentence_transformers sklearn xlrd"
    assert set(heavy.split()) <= set(absent)
    assert not {"torch", "transformers", "faiss", "openai", "s3fs", "memorag_pipeline"} & set(absent)


@pytest.mark.models
def test_a_reader_opens_searches_and_asks(animals_store: Path, absent: list[str]) -> None:
    server = ChatServer()
    generation = {"model": "m", "max_new_tokens": 10, "endpoint": {"base_url": server.url, "retries": 0}}
    try:
        told = run(ASK, absent, str(animals_store / "animals"), json.dumps(generation))
    finally:
        server.close()
    assert (told["documents"], told["found"]) == (2, "memory:///animals/otters.md")
    answer, error, evidence = told["answer"]
    assert (answer.startswith("answer to "), error, evidence) == (True, None, 2)
    assert len(server.seen) == 1


def test_commands_of_a_reader_and_those_that_need_more(animals_store: Path, absent: list[str], tmp_path: Path) -> None:
    root = str(animals_store / "animals")
    (tmp_path / "document.pdf").write_bytes(b"%PDF-1.4")
    spec = tmp_path / "corpus.yaml"
    spec.write_text(
        f"corpus: topics\nsource: {{uris: [{tmp_path}]}}\nstore: {{uri: {tmp_path}/made}}\n"
        "memory: {model: package:smollm2-135m-instruct}\nembedding: {model: package:all-minilm-l6-v2}\n",
        encoding="utf-8",
    )
    works = [["--help"], ["versions", root], ["documents", root], ["show", root], ["verify", root]]
    works += [["validate", str(spec)], ["export", root, "1", str(tmp_path / "animals.tar")]]
    results = run(COMMANDS, absent, json.dumps([*works, ["refresh", str(spec)]]))
    shown = dict(zip(map(" ".join, works), results, strict=False))
    assert {name: output for name, (code, output) in shown.items() if code} == {}
    code, output = results[-1]
    assert code == 8, output
    assert "chardet, compressed_rtf" in output and "pip install 'memorag-pipeline[cpu]'" in output
    assert not (tmp_path / "made").exists()
