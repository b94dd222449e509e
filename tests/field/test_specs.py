"""Spec files of the field: the command and the folder of DAGs take the same ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memorag_pipeline.errors import SpecError
from memorag_pipeline.specs.corpus import read_spec
from tests.field.cases import FIELD, Case, check_each, each_case, texts


def _equal(found: object, expected: object, shown: object) -> None:
    assert found == expected, shown


@each_case("specs/")
def test_a_spec_is_taken_or_refused_by_name(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("airflow")
    from memorag_operators.spec_folder import read_spec_folder

    paths = sorted(FIELD.glob(case.name)) if "*" in case.name else [FIELD / case.name]
    assert paths and all(path.is_file() for path in paths)
    for path in paths:
        shutil.copy(path, tmp_path)
    folder = read_spec_folder(tmp_path)
    told = {Path(problem.file).name: str(problem) for problem in folder.problems}
    assert {path.name for path in folder.specs} | set(told) == {path.name for path in paths}
    for path in paths:
        try:
            read_spec(path)
        except SpecError:
            assert path.name in told, "the command refuses what the folder takes"
    number = len(folder.specs)
    check_each(
        case,
        {
            "accepted": lambda value: _equal(bool(number) if isinstance(value, bool) else number, value, told),
            "exit": lambda value: _equal(SpecError.exit_code if told else 0, value, told),
            "error_has": lambda value: _equal([each for each in texts(value) if each not in str(told)], [], told),
            "error_lacks": lambda value: _equal([each for each in texts(value) if each in str(told)], [], told),
        },
    )
