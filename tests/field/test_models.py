"""Folders of models as people have them: each works, or is refused by name before anything is published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from memorag_pipeline.cli.app import app
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from tests.field.cases import Case, check_each, each_case, texts
from tests.field.tiny_models import CHANGES


@dataclass(frozen=True)
class Commands:
    """What `validate`, `refresh` and `ask` printed, up to the first that failed, and how that ended."""

    last: str
    exit: int
    output: str
    bug: BaseException | None
    published: bool


def _run(spec: CorpusSpec, folder: Path) -> Commands:
    path = folder / "quay.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    output = ""
    for command in (
        ["validate", str(path)],
        ["refresh", str(path)],
        ["ask", str(path), "What is a quay?", "--clues", "spans"],
    ):
        result = CliRunner().invoke(app, command)
        output += result.output
        if result.exit_code:
            break
    bug = None if isinstance(result.exception, SystemExit | None) else result.exception
    published = CorpusStore(f"{spec.store.uri}/{spec.corpus}").versions.newest() is not None
    return Commands(command[0], result.exit_code, output, bug, published)


@each_case("models/")
def test_a_model_works_or_is_refused_by_name(
    case: Case, field_spec: Callable[..., CorpusSpec], tiny_models: dict[str, Any], tmp_path: Path
) -> None:
    name = case.name.removeprefix("models/").strip("/")
    if name not in CHANGES:
        pytest.skip(f"{case.name}: how its folder is made is not written")
    model = Path(shutil.copytree(tiny_models["memory"]["model"], tmp_path / name))
    CHANGES[name](model)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "quay.rst").write_text("A quay is a wall where ships tie up and are unloaded.\n")
    spec = field_spec(
        tmp_path / "source",
        store={"uri": str(tmp_path / "store")},
        memory={**tiny_models["memory"], "model": str(model)},
        generation={"max_new_tokens": 4, "dtype": "float32"},
    )
    ended = _run(spec, tmp_path)
    shown = f"{ended.last} ended with {ended.exit}: {ended.bug!r}\n{ended.output}"
    if "validate" in case.expectation:
        assert ended.last == "validate", shown
    if case.expectation.startswith("refused"):
        assert not ended.published, shown
    check_each(
        case,
        {
            "exit": lambda value: _equal(ended.exit, value, shown),
            "exit_not": lambda value: _equal((ended.exit != value, ended.bug), (True, None), shown),
            "traceback": lambda value: _equal((ended.bug is not None, ended.exit != 0), (value, True), shown),
            "error_has": lambda value: _equal([each for each in texts(value) if each not in ended.output], [], shown),
            "warns": lambda value: _equal("warn" in ended.output.lower(), value, shown),
        },
    )


def _equal(found: Any, expected: Any, shown: str) -> None:
    assert found == expected, shown
