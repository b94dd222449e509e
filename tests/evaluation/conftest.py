"""The small random decoders of the memory tests."""

from __future__ import annotations

from tests.memory.conftest import adapter, beacon_folder, make_model, one_thread, tiny, tiny_folder

__all__ = ["adapter", "beacon_folder", "make_model", "one_thread", "tiny", "tiny_folder"]
