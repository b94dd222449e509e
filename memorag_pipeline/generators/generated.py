"""The output of a model in this process, as the reply of a generator.

In:  a `Generation`; its maximum length, and whether the model's template opens a thought.
Out: a `Reply` without thoughts; one that is only a thought is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memorag_pipeline.generators.completion import only_a_thought
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.models.thoughts import spoken

if TYPE_CHECKING:
    from memorag_pipeline.memory.engine.generation import Generation


def reply_of(found: Generation, max_new_tokens: int, opened: bool) -> Reply:
    """The reply in a generation."""
    said, reason = spoken(found.text, opened), None if found.error else found.finished
    error = found.error
    if error is None and said.thought and not said.text:
        error = only_a_thought(max_new_tokens, reason)
    return Reply(said.text, found.input_tokens, found.output_tokens, error, finish_reason=reason)
