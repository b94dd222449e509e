"""The stages of a training, in order."""

from __future__ import annotations

from memorag_pipeline.runs.stage import Stage

_HERE = "memorag_pipeline.training"

PREPARE = Stage("prepare", f"{_HERE}.prepare:prepare")
STUDY = Stage("study", f"{_HERE}.study:study", gpu=True)
TRAIN = Stage("train", f"{_HERE}.train:train", gpu=True)
EVALUATE = Stage("evaluate", f"{_HERE}.evaluate:evaluate", gpu=True)
REGISTER = Stage("register", f"{_HERE}.register:register")
PROMOTE = Stage("promote", f"{_HERE}.register:promote")
TRAINING = (PREPARE, STUDY, TRAIN, EVALUATE, REGISTER, PROMOTE)
