"""How sure a mean over questions is: percentile bootstrap (Efron 1979), plain and of paired differences.

In:  a number for each question; for a difference those of two systems on the same questions.
Out: the mean with the interval that holds 95 % of the means of resampled questions; the same numbers each time.
Wrong: no question at all is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_SEED = 20240910
_EDGES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A mean over `questions` questions, and its 95 % interval."""

    mean: float
    low: float
    high: float
    questions: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of `values` and its interval."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        raise ValueError("there is no value to take a mean of")
    draws = np.random.default_rng(_SEED).integers(0, len(found), (RESAMPLES, len(found)))
    low, high = np.percentile(found[draws].mean(axis=1), _EDGES)
    return Estimate(float(found.mean()), float(low), float(high), len(found))


def difference(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """The mean of `values` - `baseline`, question by question."""
    return estimate([value - other for value, other in zip(values, baseline, strict=True)])
