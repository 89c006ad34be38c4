"""How much a leg's measure counts, and the score a person can read.

    lexical(r) = sqrt(BM25(r) / best possible BM25 of the question)      in [0, 1]
    vector(r)  = 0.7 x similarity(r)
    log-odds of relevance = a + b (lexical + vector)

Both parts are absolute: they do not depend on what else was found, on k or on the filter, so a
score means the same in every question. The share of the question's information that a memory
holds is small for paraphrases and large for quotations; its square root keeps a part of the order
to the words either way. Reciprocal ranks, and scaling each leg by the best and worst it found,
both throw away how sure a leg is and were measured to do worse (query/README.md).

Arrays in, arrays out: this file knows no rows, no stores and no records.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Parts = NDArray[np.float64]

VECTOR_WEIGHT: Final = 0.7

# (a, b) of the logistic, by which legs took part: fitted on the development conversations.
CALIBRATION: Final = {
    "lexical": (-2.99, 2.27),
    "vector": (-3.25, 2.56),
    "hybrid": (-3.22, 1.77),
}


def base(legs: str) -> float:
    """The log-odds of a candidate of which nothing is known; ``legs`` that take part."""
    return CALIBRATION[legs][0]


def lexical_part(bm25: NDArray[np.float32], best_possible: float, legs: str) -> Parts:
    """(n,) log-odds of words; none where ``bm25`` is NaN.

    ``best_possible``: the BM25 of a row that holds every term of the question at saturation.
    """
    share = np.nan_to_num(bm25.astype(np.float64)) / max(best_possible, 1e-9)
    part: Parts = CALIBRATION[legs][1] * np.sqrt(np.clip(share, 0, 1))
    return part


def vector_part(similarity: NDArray[np.float32], legs: str) -> Parts:
    """(n,) log-odds of meaning; none where ``similarity`` is NaN."""
    known = np.nan_to_num(similarity.astype(np.float64))
    part: Parts = CALIBRATION[legs][1] * VECTOR_WEIGHT * known
    return part
