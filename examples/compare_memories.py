"""Compare memory kinds: how large each memory is, and how good the answers are that are written with it.

From the root of the repository, on questions about the Python language reference (some minutes), or on your own:

    .venv/bin/python examples/compare_memories.py
    .venv/bin/python examples/compare_memories.py QUESTIONS.jsonl selected full

docs/evaluation.md describes files of questions and the measures; `memorag eval` writes a report with plots. Memories
and scores are kept in .memorag/comparison, so that a second call continues where the first one ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

from memorag_pipeline import CorpusSpec
from memorag_pipeline.comparison.compare import SECTIONS, compare

QUESTIONS = (  # document, question, words of the document that answer it
    ("lambda", "What does a lambda expression yield?", "a function object"),
    ("pass", "What happens when pass is executed?", "nothing happens"),
    ("break", "Which loop does break end?", "the nearest enclosing loop"),
)


def write_questions(path: Path) -> str:
    """Write the questions, each with the document that it is about. The corpus is made of these documents."""
    rows = [
        {"question": question, "answers": [answer], "evidence": [answer], "context_id": name, "context": topics[name]}
        for name, question, answer in QUESTIONS
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def show(questions: str, kinds: Sequence[str], home: Path, sections: CorpusSpec = SECTIONS) -> None:
    """Print the size of each kind, then for each way to answer its scores, as means over the questions."""
    (found,) = compare([questions], kinds, home, sections).sets
    for kind, size in found.memory_bytes.items():
        print(f"{kind}: {size / found.tokens:,.0f} bytes for each token of the corpus")
    for system in found.systems:
        scores = ", ".join(f"{metric} {estimate.mean:.2f}" for metric, estimate in system.metrics.items())
        print(f"{system.system}: {scores}; {system.seconds:.1f} s for each question")


if __name__ == "__main__":
    folder = Path(".memorag/comparison")
    asked = sys.argv[1] if sys.argv[1:] else write_questions(folder / "questions.jsonl")
    show(asked, sys.argv[2:] or ("beacon", "selected", "full"), folder)
