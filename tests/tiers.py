"""What tests need: markers by fixture and by folder, and the fast tier, which runs without any of it.

`pytest --fast` behaves as where torch, the libraries above it and Airflow are not installed: their import fails.
Modules of tests that import them are left out, and named at the end; tests that are marked as in need of something are
deselected.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest

LIBRARIES = ("accelerate", "airflow", "faiss", "FlagEmbedding", "sentence_transformers", "torch", "transformers")
NEEDS = ("airflow", "gpu", "models", "servers", "slow")
SMALL_MODEL = "package:smollm2-135m-instruct"
_TESTS = Path(__file__).parent
_FOLDERS = {
    "airflow": ("dags", "operators"),
    "models": ("benchmarks", "comparison", "evaluation", "memory", "training"),
}
_FIXTURES = {
    "airflow": {"airflow_home", "demo", "load_dags", "metrics", "run_dag"},
    "models": {
        "changing",
        "corpus",
        "pipeline",
        "published",
        "served",
        "small_model_folder",
        "tiny_folder",
        "tiny_models",
    },
    "servers": {"postgres_server", "redis_url", "s3_server"},
}
_PARAMETERS = {("root", "s3"), ("spec", "postgres")}  # of fixtures that run a test on several servers or on none
_SLOW = {
    "refresh/test_messy.py",
    "storage/test_crashes.py",
    "storage/test_histories.py",
    "test_packaging.py",
}  # half a minute and more
_FIRST = ("integration", "dags", "training", "jobs", "memory")  # folders of files that take minutes
_LEFT_OUT = pytest.StashKey[list[str]]()


class _Without(PathFinder):
    """Finds modules as ever, but none of `LIBRARIES`."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in LIBRARIES else PathFinder.find_spec(fullname, path, target)


def configure(config: pytest.Config) -> None:
    """Begin the fast tier, if it is asked for."""
    if config.getoption("--fast"):
        config.stash[_LEFT_OUT] = []
        if not hasattr(config, "workerinput"):
            _convert_model()
        sys.meta_path[sys.meta_path.index(PathFinder)] = _Without


def _convert_model() -> None:
    """Fill the cache, once: many tests count with the small model's tokenizer, which its conversion writes."""
    code = f"from memorag_pipeline.models.references import resolve; resolve({SMALL_MODEL!r})"
    subprocess.run([sys.executable, "-c", code], cwd=_TESTS.parent, check=False)  # without torch, those tests say so


def is_left_out(path: Path, config: pytest.Config) -> bool | None:
    """Whether a module of tests, or the conftest of a folder, cannot be imported in the fast tier."""
    module = path / "conftest.py" if path.is_dir() else path
    if not config.getoption("--fast") or not module.exists() or not _is_of_tests(module):
        return None
    try:
        importlib.import_module(".".join(module.relative_to(_TESTS.parent).with_suffix("").parts))
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in LIBRARIES:
            raise
        config.stash[_LEFT_OUT].append(str(path.relative_to(_TESTS.parent)))
        return True
    except pytest.skip.Exception:  # it skips itself where something is missing
        return True
    return None


def _is_of_tests(module: Path) -> bool:
    named = module.name == "conftest.py" or (module.name.startswith("test_") and module.suffix == ".py")
    return named and module.parent != _TESTS.parent and module != _TESTS / "conftest.py"


def mark(items: Iterable[pytest.Item]) -> None:
    """Mark each test with what it needs."""
    for item in items:
        fixtures, folder = set(getattr(item, "fixturenames", ())), item.path.relative_to(_TESTS).parts[0]
        for need in {*_FIXTURES, *_FOLDERS}:
            if fixtures & _FIXTURES.get(need, set()) or folder in _FOLDERS.get(need, ()):
                item.add_marker(need)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if any(parameters.get(name) == value for name, value in _PARAMETERS):
            item.add_marker("servers")
        if item.path.relative_to(_TESTS).as_posix() in _SLOW:
            item.add_marker("slow")


def order(items: list[pytest.Item]) -> None:
    """Long files first, so that of the tests that run side by side none is left alone with a long one at the end."""
    places = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(_TESTS).parts[0], len(places)))


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the fast tier, the tests that need something."""
    if config.getoption("--fast"):
        needy = [item for item in items if any(item.get_closest_marker(need) for need in NEEDS)]
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in set(needy)]


def summary(config: pytest.Config) -> str | None:
    """What the fast tier left out."""
    if not config.getoption("--fast"):
        return None
    left_out = ", ".join(sorted(config.stash[_LEFT_OUT]))
    return f"fast tier: left out, for they import what is not needed here: {left_out or 'nothing'}"
