"""The modes of answers, and the kinds of clues.

The command line reads this for its help, so that nothing heavy is imported here, not even pydantic.
"""

from __future__ import annotations

from typing import Literal

AnswerMode = Literal["memorag", "memory_only", "retrieval_only"]
ClueKind = Literal["spans", "surrogates", "draft"]
