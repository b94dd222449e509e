"""The programs in examples/ do what their heads say."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import ask_a_version, compare_memories, own_generator
from memorag_pipeline.generators.open import GENERATORS
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.generation import ENDPOINTS
from tests.conftest import REPOSITORY

PROGRAMS = ("ask_a_version.py", "compare_memories.py", "own_generator.py")


@pytest.mark.models
def test_a_version_is_searched_and_asked(
    animals_store: Path, short_answers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_a_version.main([str(animals_store / "animals"), "Who holds hands?"])
    version, best, second, *answer = capsys.readouterr().out.splitlines()
    assert version == "version 1: 2 documents"
    assert re.fullmatch(r"0\.\d\d memory:///animals/otters.md 0-\d+", best)
    assert "bees.md" in second
    assert answer[0] and not answer[0].startswith("no answer")


def test_a_version_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no version; refresh the corpus first"):
        ask_a_version.main([str(tmp_path), "Who?"])


@pytest.mark.models
def test_the_generator_of_ones_own_quotes_the_sentence_that_answers(
    animals_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in (GENERATORS, ENDPOINTS):  # afterwards both are as they were
        monkeypatch.setitem(table, "quoting", None)  # type: ignore[arg-type]
    own_generator.main([str(animals_store / "animals"), "Why do otters hold hands?", "What does a bee visit?"])
    otters, bees = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Sea otters hold hands while they sleep, so that they do not drift apart\. \[\d\]", otters)
    assert re.fullmatch(r"A honey bee visits about two million flowers for one jar of honey\. \[\d\]", bees)


@pytest.mark.models
def test_memories_of_two_kinds_are_compared(
    source: Path, make_tiny_spec: Callable[..., CorpusSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = compare_memories.write_questions(tmp_path / "questions.jsonl")
    sections = make_tiny_spec(source, generation={"max_new_tokens": 4, "evidence_tokens": 128})
    compare_memories.show(questions, ("selected", "full"), tmp_path / "home", sections)
    printed = capsys.readouterr().out.splitlines()
    selected, full = (int(re.findall(r": ([\d,]+) bytes", line)[0].replace(",", "")) for line in printed[:2])
    assert 0 < selected < full
    systems = [line.partition(":")[0] for line in printed[2:]]
    assert {"retrieval only", "memory only, selected", "MemoRAG, full"} < set(systems)
    assert all("token_f1" in line for line in printed[2:])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_short_and_says_how_it_is_run(name: str) -> None:
    code = (REPOSITORY / "examples" / name).read_text(encoding="utf-8")
    assert code.count("\n") < 60
    assert f".venv/bin/python examples/{name}" in (ast.get_docstring(ast.parse(code)) or "")
