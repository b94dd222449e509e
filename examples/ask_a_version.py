"""Ask a published version, as a service does: open it once, search it, answer from it.

After `make demo`, from the root of the repository:

    export MEMORAG_CACHE=.memorag/cache
    .venv/bin/python examples/ask_a_version.py .memorag/store/python_reference "When does the else of a loop run?"

Any other corpus is named in the same way, such as s3://bucket/kb/handbook. A version stays as it was when it was
opened; a service opens another one to see a later refresh.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from memorag_pipeline import GenerationSpec, MemoragError, Version, open_version


def ask(version: Version, question: str, generation: GenerationSpec | None = None) -> None:
    """Print the passages nearest to a question, then its answer with the passages that it cites."""
    for passage in version.search(question, k=3):
        print(f"{passage.score:.2f} {passage.uri} {passage.start}-{passage.end}")
    (answer,) = version.answer([question], generation=generation)
    if answer.error is not None:  # a question that fails says why; the others of a call are answered
        print(f"no answer: {answer.error}")
        return
    print(answer.answer)
    for number in answer.used:
        cited = answer.evidence[number - 1]
        print(f"[{number}] {cited.uri} {cited.start}-{cited.end}")


def main(arguments: Sequence[str]) -> None:
    """The URI of a corpus, and a question."""
    uri, question = arguments
    try:
        version = open_version(uri)
        print(f"version {version.number}: {version.manifest.counts['documents']} documents")
        ask(version, question, GenerationSpec(max_new_tokens=64))
    except MemoragError as error:  # says what is wrong, where, and what to do
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
