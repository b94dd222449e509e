"""What the README shows works as it stands."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from memorag_pipeline.jobs.answers.answer import Answer
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.version import Version
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_spec_is_accepted(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    path = tmp_path / "handbook.yaml"
    path.write_text(text, encoding="utf-8")
    assert list(read_spec(path).jobs) == ["faq", "digests"]


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
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
