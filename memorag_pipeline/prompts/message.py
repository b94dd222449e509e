"""A message of a chat."""

from __future__ import annotations

Message = dict[str, str]  # {"role": "system" | "user", "content": …}, as chat templates take it
