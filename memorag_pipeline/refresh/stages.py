"""The stages of a refresh, in order."""

from __future__ import annotations

STAGES = ("inventory", "extract", "shard", "memorize", "embed", "index", "publish")
