"""The README's examples work unchanged. `tests/integration/test_demo.py` runs its program, spec and commands."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from memorag_pipeline.jobs.answers.answer import Answer
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.version import Version
from tests.conftest import REPOSITORY
from tests.fixtures.command_line import PROGRAM, check

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(number: int) -> list[str]:
    """The commands of a shell block, without their comments."""
    return [line.partition("  #")[0].strip() for line in blocks("sh")[number].splitlines()]


def test_the_two_commands_are_targets_of_make_that_run_what_tests_run() -> None:
    """`tests/integration/test_demo.py` runs the demo's program; pytest is running just now."""
    assert commands(0) == ["make demo", "make test"]
    for target, program in {
        "demo": "examples/demo.py",
        "test": "-m pytest",
        "airflow": "infra/airflow_local.py",
    }.items():
        shown = subprocess.run(
            ["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert program in shown.stdout


def test_all_other_commands_are_in_the_two_blocks_that_the_test_of_the_demo_runs() -> None:
    assert len(blocks("sh")) == 3
    lines = [line for number in (1, 2) for line in commands(number)]
    assert all(line.startswith((".venv/bin/memorag ", "export MEMORAG_CACHE=")) for line in lines)
    assert {".venv/bin/memorag", "export"} == {line.split()[0] for line in lines}
    with_arguments = re.findall(r"`((?:memorag|make|python) [^`]* [^`]*)`", README)
    assert with_arguments == []  # in a sentence only the name of a command


@pytest.mark.parametrize("line", [line for number in (1, 2) for line in commands(number) if "memorag " in line])
def test_memorag_takes_every_command(line: str) -> None:
    check(line)


def test_names_of_commands_are_those_of_the_program() -> None:
    assert set(re.findall(r"`memorag ([a-z-]+)", README)) <= set(PROGRAM.commands)
    targets = set(re.findall(r"`make ([a-z-]+)", README))
    assert targets and all(f"\n{target}: " in (REPOSITORY / "Makefile").read_text("utf-8") for target in targets)


def test_the_pictures_are_small() -> None:
    images = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", README)
    assert len(images) == 2
    for image in images:
        data = (REPOSITORY / image).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < 150_000


def test_the_spec_is_accepted(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    path = tmp_path / "handbook.yaml"
    path.write_text(text, encoding="utf-8")
    assert list(read_spec(path).jobs) == ["faq", "digests"]


def test_the_example_has_the_sections_of_the_spec_but_those_of_services() -> None:
    (text,) = blocks("yaml")
    example = REPOSITORY / "examples" / "handbook"
    shown, tried = (yaml.safe_load(each) for each in (text, (example / "handbook.yaml").read_text(encoding="utf-8")))
    assert set(shown) - set(tried) == {"schedule", "compute"}
    assert shown["jobs"].keys() == tried["jobs"].keys() and shown["evaluation"].keys() == tried["evaluation"].keys()
    assert all(tried[section]["model"].startswith("package:") for section in ("memory", "embedding"))


def test_the_gate_of_the_example_asks_for_what_its_documents_say() -> None:
    example = REPOSITORY / "examples" / "handbook"
    for line in (example / "expected.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        document = " ".join((example / "documents" / row["uri"]).read_text(encoding="utf-8").split())
        assert all(text in document for text in (*row["evidence"], *row["answers"]))


def test_the_service_uses_names_that_exist() -> None:
    (code,) = blocks("python")
    compile(code, "README.md", "exec")
    used = {"version": Version, "passage": Passage, "answer": Answer}
    for name, kind in used.items():
        attributes = set(re.findall(rf"\b{name}\.(\w+)", code))
        assert attributes
        set_when_made = re.findall(r"self\.(\w+)", "".join(map(inspect.getsource, kind.__mro__[:-1])))
        assert attributes <= {*dir(kind), *inspect.get_annotations(kind), *set_when_made}


def test_every_link_into_the_repository_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []


def test_every_row_of_measurements_has_the_command_that_reproduces_it() -> None:
    page = (REPOSITORY / "docs" / "measurements.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"-m (benchmarks\.\w+)", page))
    assert len(modules) >= 3
    assert [name for name in modules if not (REPOSITORY / f"{name.replace('.', '/')}.py").exists()] == []
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)]
    rows = [row for table in tables if "command" in table[0] for row in table[2:]]
    assert len(rows) > 15
    assert [row for row in rows if not re.search(r"\| (`.+`|the same) \|$", row)] == []
