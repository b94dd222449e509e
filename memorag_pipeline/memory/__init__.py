"""Memory models: a shard's token stream is read once, and many prompts are answered from the memory.

`interface` is what every kind implements, `full` the plain key/value cache; `decode` is the batched generation that all
kinds share, `format` the memory file, `stream` the tokens. Import the modules: torch is loaded with most of them.
"""

import os

# Buffers of memories are tens of MiB, and on CPUs the first touch of small pages costs more than what is written.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first large allocation
