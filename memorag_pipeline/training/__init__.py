"""Training the memory: beacon parameters on the engine's own pass, the base model frozen.

`spec` says what is trained, `data` reads texts and instructions, `parameters`, `windows_pass` and `loss` are the
computation, `trainer` the loop with its checkpoints, `adapter` the file that comes out. Import the modules: torch is
loaded with most of them.
"""
