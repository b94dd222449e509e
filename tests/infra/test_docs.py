"""The commands in docs/deploy.md and docs/operate.md exist, and their calculations are right."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from tests.conftest import REPOSITORY
from tests.fixtures.command_line import PROGRAM, check

cli_parser = pytest.importorskip("airflow.cli.cli_parser")

PAGES = {name: (REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("deploy.md", "operate.md")}


def commands(program: str) -> list[str]:
    """All whole commands of a program, in blocks and between backquotes; `memorag gc` by itself is just a name."""
    found = []
    for text in PAGES.values():
        lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
        found += [line.partition("  #")[0].strip() for line in lines if line.startswith(f"{program} ")]
    return sorted({line for line in found if len(line.split()) > 2 or program == "airflow"})


@pytest.mark.parametrize("line", commands("memorag"))
def test_memorag_takes_every_command(line: str) -> None:
    check(line)


@pytest.mark.parametrize("line", ["memorag rolback x y", "memorag gc x --dry", "memorag rollback x --why y"])
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    with pytest.raises((KeyError, typer.BadParameter.__mro__[1])):
        check(line)


@pytest.mark.parametrize("line", commands("airflow"))
def test_airflow_takes_every_command(line: str) -> None:
    cli_parser.get_parser().parse_args(shlex.split(line)[1:])


def test_names_of_commands_are_those_of_the_program() -> None:
    known = set(PROGRAM.commands)
    for page, text in PAGES.items():
        assert set(re.findall(r"`memorag ([a-z]+)", text)) <= known, page


def test_files_and_links_are_there() -> None:
    for page, text in PAGES.items():
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
        paths = [REPOSITORY / "docs" / link for link in links]
        paths += [
            REPOSITORY / path for path in re.findall(r"(?<!/)\b(infra/[\w./-]+\w)", text) if path != "infra/compose.env"
        ]
        assert paths and [path for path in paths if not path.exists()] == [], page
    files = re.findall(r"^\| `([\w/.*-]+)`", PAGES["deploy.md"].partition("## One machine")[0], re.MULTILINE)
    assert len(files) >= 6
    assert [name for name in files if not list((REPOSITORY / "infra").glob(name.rstrip("/")))] == []


def test_versions_that_cost_work_are_in_the_code() -> None:
    names = re.findall(r"`(memorag_pipeline\.[\w.]+)\.(\w+_VERSION)`", PAGES["deploy.md"])
    assert len(names) == 8
    for module, name in names:
        text = (REPOSITORY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert re.search(rf"^{name} = \d+\b", text, re.MULTILINE), (module, name)


def test_the_example_of_sizing_is_what_its_formulas_give() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["deploy.md"], re.DOTALL)
    values: dict[str, dict[str, float]] = {}
    exec(code, values)  # type: ignore[arg-type]
    table = dict(re.findall(r"^\| ([^|]+) \| ([\d,.]+)[^|]*\|$", PAGES["deploy.md"], re.MULTILINE))
    for name, value in values["sizes"].items():
        shown = table[name].rstrip(".")
        assert shown == (f"{value:,.0f}" if value >= 10 else f"{value:.1f}"), name
