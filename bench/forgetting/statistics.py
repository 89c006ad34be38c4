"""Whether one contender keeps more than another, by a paired bootstrap over questions.

B. Efron and R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 16: questions are
drawn with replacement, both contenders' recalls of a question together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.forgetting.history import Floats

RESAMPLES = 10_000


class Comparison(NamedTuple):
    """``difference`` of means with its 95 % interval; ``p`` that it is not above zero."""

    difference: float
    low: float
    high: float
    p: float


def compare(ours: Floats, theirs: Floats, seed: int = 0) -> Comparison:
    """Paired, by question; both (questions,)."""
    differences = ours - theirs
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 500):
        drawn = rng.integers(0, len(differences), (500, len(differences)))
        means[start : start + 500] = differences[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    p = (np.count_nonzero(means <= 0) + 1) / (RESAMPLES + 1)
    return Comparison(float(differences.mean()), float(low), float(high), float(p))


def gap_closed(ours: float, least: float, most: float) -> float:
    """The share of the way from ``least`` to ``most``."""
    return (ours - least) / (most - least) if most > least else 0.0
