"""More vectors than there are: perturbed copies of real ones.

Vector i of copy c is x_i + t (x_j - x_m) for random rows j and m: noise with the covariance of the
data, so that copies stay among the directions the data has, and no two are near duplicates.
"""

from __future__ import annotations

import numpy as np

from bench import report
from bench.ann.truth import Floats

SPREAD = 0.35
CAVEAT = (
    f"vectors beyond the given ones are perturbed copies, x_i + {SPREAD} (x_j - x_m): compare "
    "engines with each other on them, not with figures of real vectors of that number"
)


def extended(base: Floats, count: int, metric: str, seed: int) -> Floats:
    """(count, dim) float32: all of base, then perturbed copies of its rows in order."""
    made = np.empty((count, base.shape[1]), np.float32)
    for first in range(0, count, len(base)):
        report.progress(f"perturbed copies: {first:,}/{count:,}")
        size = min(len(base), count - first)
        made[first : first + size] = block(base, first, size, metric, seed)
    report.progress("")
    return made


def block(base: Floats, first: int, size: int, metric: str, seed: int) -> Floats:
    """(size, dim) vectors from number ``first`` on, a multiple of how many there are; by itself."""
    if first == 0:
        return base[:size]
    rng = np.random.default_rng((seed, first))
    j, m = rng.integers(0, len(base), (2, size))
    made = base[j] - base[m]
    made *= SPREAD
    made += base[:size]
    if metric == "cosine":
        made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-30)
    return made
