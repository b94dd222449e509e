"""Shared fixtures. Nothing that a test does leaves the repository's `.memorag/` folder and pytest's temporary folders."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

# Before anything imports Airflow (dlt does) or a model library.
os.environ.setdefault("MEMORAG_CACHE", str(REPOSITORY / ".memorag" / "cache"))
os.environ.setdefault("AIRFLOW_HOME", str(REPOSITORY / ".memorag" / "test-airflow"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

pytest_plugins = ["tests.fixtures.corpus", "tests.fixtures.postgres", "tests.fixtures.s3"]
