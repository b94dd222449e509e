"""A custom generator: it quotes the sentence of the evidence that shares most words with the question.

After `make demo`, from the root of the repository:

    export MEMORAG_CACHE=.memorag/cache
    .venv/bin/python examples/own_generator.py .memorag/store/python_reference "What does a lambda expression yield?"

The two entries that `main` makes are all that a spec needs to ask for `generation: {endpoint: {kind: quoting}}`.
docs/adding.md has the rest of the contract, such as keeping replies so that nothing is paid for twice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from memorag_pipeline import GenerationSpec, open_version
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.open import GENERATORS
from memorag_pipeline.specs.generation import ENDPOINTS, EndpointTraits
from memorag_pipeline.words import sentences_of, words_of


class QuotingGenerator:
    """Only quotes: a reply is a sentence of a passage, and the passage's number."""

    at_once = 64  # conversations

    def __init__(self, spec: GenerationSpec, count_tokens: Callable[[str], int], *_: Any) -> None:
        self.count_tokens = count_tokens

    def reply(self, conversations: Sequence[Any], on_finished: Callable[[], None] | None = None) -> list[Reply]:
        """A reply to each conversation, whose last message holds the passages and the question."""
        return [self._quote(messages[-1]["content"]) for messages in conversations]

    def close(self) -> None:
        """Nothing is open."""

    def _quote(self, prompt: str) -> Reply:
        passages = re.findall(r"<passage (\d+)>\n(.*?)\n</passage \1>", prompt, re.DOTALL)
        sentences = [(number, found) for number, text in passages for found in sentences_of(text)]
        asked = set(words_of(prompt.rpartition("Question:")[2]))
        number, best = max(sentences, key=lambda found: len(asked & set(words_of(found[1]))))
        return Reply(f"{' '.join(best.split())} [{number}]", self.count_tokens(prompt), self.count_tokens(best))


def main(arguments: Sequence[str]) -> None:
    """The URI of a corpus, and questions. Its memories are not asked, so no model writes anything."""
    GENERATORS["quoting"] = f"{__name__}:QuotingGenerator"
    ENDPOINTS["quoting"] = EndpointTraits("quotes a sentence of the evidence.", url="http://127.0.0.1")
    settings = GenerationSpec.model_validate({"model": "none", "endpoint": {"kind": "quoting"}})
    for answer in open_version(arguments[0]).answer(arguments[1:], mode="retrieval_only", generation=settings):
        print(answer.answer or answer.error)


if __name__ == "__main__":
    main(sys.argv[1:])
