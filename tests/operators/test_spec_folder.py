"""One odd file in the folder of specs costs its own DAGs, and no other's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline.errors import SpecProblem
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec
from tests.specs.test_odd_files import ODD

pytest.importorskip("airflow")

MakeSpec = Callable[..., CorpusSpec]


def read(folder: Path) -> tuple[list[str], dict[str, list[SpecProblem]]]:
    """The corpora that get DAGs, and the problems by file."""
    from memorag_operators.spec_folder import read_spec_folder

    found = read_spec_folder(folder)
    problems: dict[str, list[SpecProblem]] = {}
    for problem in found.problems:
        problems.setdefault(Path(problem.file).name, []).append(problem)
    return sorted(spec.corpus for spec in found.specs.values()), problems


def test_all_odd_files_at_once_cost_the_others_nothing(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, spec_folder: Path
) -> None:
    write_spec(make_spec(source), "topics")
    write_spec(make_spec(source, corpus="zoo"), "zzz")
    for number, (text, _) in enumerate(ODD.values()):
        path = spec_folder / f"odd{number}.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    os.mkfifo(spec_folder / "pipe.yaml")
    (spec_folder / "folder.yaml").mkdir()
    (spec_folder / "gone.yaml").symlink_to(spec_folder / "nowhere")
    corpora, problems = read(spec_folder)
    assert corpora == ["topics", "zoo"]
    assert set(problems) == {*(f"odd{n}.yaml" for n in range(len(ODD))), "pipe.yaml", "folder.yaml", "gone.yaml"}


def test_a_file_named_yml_is_a_spec_as_any_other(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, spec_folder: Path
) -> None:
    write_spec(make_spec(source), "topics")
    write_spec(make_spec(source, corpus="zoo"), "zoo")
    (spec_folder / "zoo.yaml").rename(spec_folder / "zoo.yml")
    (spec_folder / "twice.yml").write_bytes((spec_folder / "topics.yaml").read_bytes())
    (spec_folder / "notes.txt").write_text("corpus: notes")
    (spec_folder / "training").mkdir()
    (spec_folder / "training" / "odd.yml").write_text("adapter: [")
    corpora, problems = read(spec_folder)
    assert corpora == ["topics", "zoo"]
    assert set(problems) == {"twice.yml", "odd.yml"}


def test_a_fault_of_ours_costs_one_file_too(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, spec_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memorag_operators import spec_folder as module

    def faulty(path: Path) -> CorpusSpec:
        if path.stem == "odd":
            raise RecursionError("hunter2")
        return read_spec(path)

    read_spec = module.read_spec
    monkeypatch.setattr(module, "read_spec", faulty)
    write_spec(make_spec(source), "topics")
    write_spec(make_spec(source, corpus="odd"), "odd")
    corpora, problems = read(spec_folder)
    assert corpora == ["topics"]
    (problem,) = problems["odd.yaml"]
    assert "unexpected RecursionError" in problem.problem and "hunter2" not in str(problem)


def test_what_airflow_does_not_take_is_found_before_a_dag_is_made(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, spec_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(make_spec(source), "topics")
    write_spec(make_spec(source, corpus="told", alerts={"connection_id": "slack"}), "told")
    # As where the provider of HTTP connections is not installed.
    monkeypatch.setitem(__import__("sys").modules, "memorag_operators.notifiers", None)
    corpora, problems = read(spec_folder)
    assert corpora == ["topics"]
    (problem,) = problems["told.yaml"]
    assert problem.key == "alerts" and "memorag_operators.notifiers" in problem.problem


def test_a_file_with_a_name_that_is_no_text_is_refused(spec_folder: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(spec_folder) + b"/caf\xe9.yaml")).write_text("corpus: a", encoding="utf-8")
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    corpora, problems = read(spec_folder)
    assert corpora == []
    (problem,) = problems["caf�.yaml"]
    assert "not UTF-8" in problem.problem
    str(problem).encode("utf-8")
