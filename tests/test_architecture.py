"""docs/architecture.md names the packages, layers, stages and folders of the store as the code has them."""

from __future__ import annotations

import re
import tomllib

import pytest

from memorag_pipeline.jobs.answers.stages import ANSWERS
from memorag_pipeline.jobs.summaries.stages import SUMMARIES
from memorag_pipeline.refresh.stages import GATE, RECORD, REFRESH
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.storage.layout import is_in_our_folders
from memorag_pipeline.training.stages import TRAINING
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
LIBRARY = REPOSITORY / "memorag_pipeline"
MADE_BY_TOOLS = {"build", "dist"}


def block_after(heading: str) -> list[str]:
    """The lines of the first block after a heading."""
    found = re.search(rf"^## {heading}\n.*?^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].splitlines()


def test_the_tree_names_every_package() -> None:
    named, parents = set(), [""]
    for line in block_after("The packages"):
        indent, name = re.findall(r"^( *)([\w.]+)/", line)[0]
        depth = len(indent) // 2
        parents[depth + 1 :] = [f"{parents[depth]}{name}/"]
        named.add(parents[depth + 1])
    top = {path for path in REPOSITORY.iterdir() if path.is_dir() and path.name not in MADE_BY_TOOLS}
    top = {path for path in top if not path.name.startswith(".") and not path.name.endswith(".egg-info")}
    inside = {path for path in LIBRARY.rglob("*") if path.is_dir() and path.name != "__pycache__"}
    present = {f"{path.relative_to(REPOSITORY).as_posix()}/" for path in top | inside}
    assert named == present


def test_the_layers_are_those_that_import_linter_checks() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["memorag_pipeline"]]
    checked = [[name for name in re.split(r"[ |:]+", layer) if (LIBRARY / name).is_dir()] for layer in layers]
    assert [line.split(" | ") for line in block_after("Who may import whom")] == [names for names in checked if names]


@pytest.mark.parametrize(
    ("title", "stages"),
    [
        ("Refresh", (*REFRESH, *GATE, RECORD)),
        ("Answers", ANSWERS),
        ("Summaries", SUMMARIES),
        ("Training", TRAINING),
    ],
)
def test_the_stages_are_those_of_the_lists(title: str, stages: tuple[Stage, ...]) -> None:
    section = PAGE.partition(f"**{title}** (`")[2]
    path, _, rest = section.partition("`")
    table = re.search(r"\n\n((?:\|.*\n)+)", rest)
    assert (REPOSITORY / path).exists() and table
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", table[1], re.MULTILINE)
    assert [name for name, _ in rows] == [stage.name for stage in stages]
    assert {name: "GPU" in runs for name, runs in rows} == {stage.name: stage.gpu for stage in stages}
    assert {name: "once" not in runs for name, runs in rows} == {
        stage.name: stage.planned_by is not None for stage in stages
    }


def test_the_folders_of_a_store_are_those_of_the_layout() -> None:
    lines = [line.split("  ")[1] for line in block_after("The artifact protocol") if line.startswith("  ")]
    names = {path.strip().partition("/")[0] for line in lines for path in line.split(",")}
    assert len(names) == 11
    assert all(is_in_our_folders(f"{name}/any") for name in names)


def test_files_and_links_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", PAGE) if "://" not in link]
    assert links and [link for link in links if not (REPOSITORY / "docs" / link).exists()] == []
    files = re.findall(r"`((?:memorag_pipeline/)[\w/]+\.py)`", PAGE)
    assert files and [path for path in files if not (REPOSITORY / path).exists()] == []


def test_every_word_is_explained_once() -> None:
    words = re.findall(r"^\| ([^|]+) \| ", PAGE.partition("## Words")[2], re.MULTILINE)
    assert len(words) > 40 and len(words) == len(set(words))
