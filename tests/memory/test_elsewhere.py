"""The engine, its training and its benchmarks where little is installed, and their tests on another device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.memory import conftest
from tests.memory.conftest import bare, random_beacons, small_model

# As in images for GPUs: what is named, and what that needs itself. pydantic has to be added to some.
INSTALLED = ("torch", "transformers", "safetensors", "pydantic", "numpy")
MODULES = (
    "memorag_pipeline.memory.gpu_memory",
    "memorag_pipeline.memory.kinds.attended",
    "memorag_pipeline.memory.kinds.full",
    "memorag_pipeline.memory.kinds.gist",
    "memorag_pipeline.memory.kinds.load",
    "memorag_pipeline.memory.kinds.selected",
    "memorag_pipeline.training.adapter",
    "memorag_pipeline.training.trainer",
    "memorag_pipeline.evaluation.gap",
    "benchmarks.gpu",
    "benchmarks.memory",
    "benchmarks.quality",
    "benchmarks.training",
)
CODE = """
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

count = int(sys.argv[1])
found, todo = set(), sys.argv[2 : 2 + count]
while todo:
    name = canonicalize_name(todo.pop())
    if name in found:
        continue
    found.add(name)
    try:
        needed = map(Requirement, requires(name) or [])
    except PackageNotFoundError:  # of another platform
        continue
    todo += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
own = {"memorag_pipeline", "memorag_operators"}
absent = {
    module
    for module, names in packages_distributions().items()
    if module not in own and not found & set(map(canonicalize_name, names))
}
assert {"pyarrow", "accelerate", "psycopg2"} <= absent, absent


class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
for module in list(sys.modules):
    if module.partition(".")[0] in absent:
        del sys.modules[module]
for module in sys.argv[2 + count :]:
    if module.endswith(".py"):
        sys.exit(import_module("pytest").main([module, "--collect-only", "-q", "-p", "no:cacheprovider"]))
    import_module(module)
"""


def where_only(installed: Sequence[str], *modules: str) -> subprocess.CompletedProcess[str]:
    """Import modules, and let pytest collect a file of tests, as if nothing else were installed."""
    command = [sys.executable, "-c", CODE, str(len(installed)), *installed, *modules]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # their entry points are still there
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment)


def test_engine_training_and_benchmarks_are_imported_from_little() -> None:
    done = where_only(INSTALLED, *MODULES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["memory", "training"])
def test_recorded_cases_are_collected_with_little_more(folder: str) -> None:
    """Without what the fixtures of other tests need."""
    done = where_only([*INSTALLED, "pytest"], f"tests/{folder}/test_golden.py")
    assert done.returncode == 0 and "error" not in done.stdout, done.stdout + done.stderr


def test_models_of_tests_are_on_the_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the device of shapes; on a GPU the tests are run with MEMORAG_TEST_DEVICE=cuda."""
    monkeypatch.setattr(conftest, "DEVICE", torch.device("meta"))
    plain = small_model()
    beacons = random_beacons(plain)
    model = bare(plain, beacons)
    assert model.network.device.type == model.language_model.device.type == "meta"
    assert all(parameter.device.type == "meta" for parameter in model.network.beacons.parameters())
    assert plain.device.type == "cpu" and beacons.embedding is not None and beacons.embedding.device.type == "cpu"
