"""Memory models: a shard's token stream is read once, and many prompts are answered from what was kept.

`interface` is what every kind implements, `full` the plain key/value cache; `decode` is the batched generation that all
kinds share, `format` the memory file, `stream` the tokens. Import the modules: torch is loaded with most of them.
"""
