"""What a memory is worth: the gap that it closes, needles that it remembers, clues that find the evidence.

`gap`, `needles` and `recall_quality` are the measures, `subjects` the memories that are compared, `evaluate` brings
them together for an adapter, `report` makes a page of it. Import the modules: torch is loaded with most of them.
"""
