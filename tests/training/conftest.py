"""Small models, as the tests of memories have them."""

from tests.memory.conftest import one_thread, tiny, tiny_folder

__all__ = ["one_thread", "tiny", "tiny_folder"]
