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
    made[: len(base)] = base
    for first in range(len(base), count, len(base)):
        report.progress(f"perturbed copies: {first:,}/{count:,}")
        size = min(len(base), count - first)
        rng = np.random.default_rng((seed, first))
        j, m = rng.integers(0, len(base), (2, size))
        block = made[first : first + size]
        np.subtract(base[j], base[m], out=block)
        block *= SPREAD
        block += base[:size]
        if metric == "cosine":
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
    report.progress("")
    return made
