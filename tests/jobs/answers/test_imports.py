"""Planning a run costs no model library until a model is needed."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "torch",
    "transformers",
    "FlagEmbedding",
    "sentence_transformers",
    "faiss",
    "duckdb",
    "pypdfium2",
    "openai",
)


def test_the_stages_import_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from memorag_pipeline.jobs.answers import ask, generate, recall, retrieve, route\n"
        "from memorag_pipeline.generators import endpoint, local\n"
        "from memorag_pipeline.jobs.summaries import generate, load, merge, plan, recall, summarize\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
