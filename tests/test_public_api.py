"""The names that a service imports from the package itself: none is missing, none is unlisted, none imports torch."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import memorag_pipeline
from memorag_pipeline import errors
from tests.conftest import REPOSITORY

PUBLIC = [
    "Answer",
    "ArgumentError",
    "Clue",
    "ContextLengthError",
    "CorpusSpec",
    "CorruptBlobError",
    "EndpointError",
    "EndpointRefusedError",
    "EndpointSpec",
    "GenerationSpec",
    "MemoragError",
    "MemoryConfigError",
    "MemoryMismatchError",
    "MissingDependencyError",
    "ModelError",
    "NotFoundError",
    "Passage",
    "PricesSpec",
    "Recollection",
    "RetiredVersionError",
    "SpecError",
    "SpecProblem",
    "StorageError",
    "Summary",
    "UntrustedReferenceError",
    "Version",
    "__version__",
    "open_version",
    "read_spec",
]


def test_the_public_names_are_these() -> None:
    assert memorag_pipeline.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_in_the_page_on_the_api(name: str) -> None:
    assert getattr(memorag_pipeline, name) is not None
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    assert name == "__version__" or re.search(rf"`{name}\b", page)


def test_what_a_version_gives_and_takes_has_public_types() -> None:
    from memorag_pipeline.jobs.answers.answer import Answer, Recollection
    from memorag_pipeline.jobs.summaries.summary import Summary
    from memorag_pipeline.retrieval.passage import Passage

    named = {"Answer": Answer, "Recollection": Recollection, "Summary": Summary, "Passage": Passage}
    for method in ("answer", "recall", "summarize", "search"):
        hints = typing.get_type_hints(getattr(memorag_pipeline.Version, method), localns=named)
        for found in [hints["return"], *typing.get_args(hints["return"]), *typing.get_args(hints.get("generation"))]:
            if getattr(found, "__module__", "").startswith("memorag_pipeline."):
                assert getattr(memorag_pipeline, found.__name__) is found


def test_errors_of_the_api_say_that_a_user_can_act_on_them() -> None:
    public = {name: getattr(memorag_pipeline, name) for name in PUBLIC if name.endswith("Error")}
    assert all(issubclass(error, memorag_pipeline.MemoragError) for error in public.values())
    assert all(getattr(errors, name) is error for name, error in public.items())


def test_a_name_that_is_not_there_is_told_as_for_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'memorag_pipeline' has no attribute 'Versoin'"):
        memorag_pipeline.Versoin  # noqa: B018
    assert set(PUBLIC) <= set(dir(memorag_pipeline))


def test_all_names_together_load_no_model_library_and_no_airflow() -> None:
    code = "import sys; from memorag_pipeline import *; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "transformers", "faiss", "FlagEmbedding", "sentence_transformers", "airflow", "duckdb", "openai"]
    run = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_type_checkers_read_the_types() -> None:
    found = importlib.util.find_spec("memorag_pipeline")
    assert found is not None and found.origin is not None
    assert (Path(found.origin).parent / "py.typed").exists()
