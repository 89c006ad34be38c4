"""Joining the lexical and the vector leg into one order, and a score a person can read.

Both scores are brought to [0, 1] per query and added with fixed weights; reciprocal ranks throw
away how sure each leg is and were measured to lose ten points on conversations. Every part of a
fused score is kept, so that ``explain`` can account for it without a remainder.

Arrays in, arrays out: this file knows rows as numbers and nothing of stores or records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VECTOR_WEIGHT = 0.5
SPREAD_WEIGHT = 0.3
_FLOOR_QUANTILE = 0.0

# Logistic calibration of relevance; see query/README.md for how it was fitted.
_BIAS, _PER_COVERAGE, _PER_COSINE = -4.0, 4.0, 4.0


class Candidates(NamedTuple):
    """Rows (n,) with their raw scores; NaN where a leg does not know the row."""

    rows: NDArray[np.uint32]
    bm25: NDArray[np.float32]
    cosine: NDArray[np.float32]


class Fused(NamedTuple):
    """Contributions (n,) of each stage to the order, in the rows of the candidates."""

    lexical: NDArray[np.float32]
    vector: NDArray[np.float32]

    @property
    def total(self) -> NDArray[np.float32]:
        total: NDArray[np.float32] = self.lexical + self.vector
        return total


def join(
    lexical: tuple[NDArray[np.uint32], NDArray[np.float32]],
    vector: tuple[NDArray[np.uint32], NDArray[np.float32]],
) -> Candidates:
    """The union of two legs' rows; ascending."""
    rows = np.union1d(lexical[0], vector[0]).astype(np.uint32)
    bm25 = np.full(len(rows), np.nan, np.float32)
    cosine = np.full(len(rows), np.nan, np.float32)
    bm25[np.searchsorted(rows, lexical[0])] = lexical[1]
    cosine[np.searchsorted(rows, vector[0])] = vector[1]
    return Candidates(rows, bm25, cosine)


def fuse(candidates: Candidates, *, vector_weight: float = VECTOR_WEIGHT) -> Fused:
    """Scale each leg by its best and its worst candidate, weigh, keep apart.

    BM25 is zero for a row without a query term, so its floor is zero; a cosine's floor is the
    lowest among the candidates.
    """
    return Fused(
        _scale(candidates.bm25, 0.0),
        np.float32(vector_weight) * _scale(candidates.cosine, None),
    )


def _scale(scores: NDArray[np.float32], floor: float | None) -> NDArray[np.float32]:
    known = ~np.isnan(scores)
    scaled = np.zeros(len(scores), np.float32)
    if known.any():
        low = float(scores[known].min()) if floor is None else floor
        spread = float(scores[known].max()) - low
        if spread > 0:
            scaled[known] = (scores[known] - low) / spread
        else:
            scaled[known] = 1.0
    return scaled


def relevance(
    bm25: NDArray[np.float32], cosine: NDArray[np.float32], best_possible: float
) -> NDArray[np.float32]:
    """(n,) estimates in [0, 1] that a row is relevant, comparable across queries.

    ``best_possible`` is the BM25 of a row that holds every query term at saturation. A leg that
    does not know a row counts as zero.
    """
    coverage = np.nan_to_num(bm25) / np.float32(max(best_possible, 1e-9))
    logit = _BIAS + _PER_COVERAGE * np.clip(coverage, 0, 1) + _PER_COSINE * np.nan_to_num(cosine)
    estimate: NDArray[np.float32] = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return estimate
