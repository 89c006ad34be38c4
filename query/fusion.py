"""Joining the lexical and the vector leg into one order, and a score a person can read.

    lexical(r) = sqrt(BM25(r) / best possible BM25 of the question)      in [0, 1]
    vector(r)  = 0.7 x similarity(r)
    order by lexical + vector;  relevance = logistic(a + b (lexical + vector))

Both parts are absolute: they do not depend on what else was found, on k or on the filter, so a
score means the same in every question. The share of the question's information that a memory
holds is small for paraphrases and large for quotations; its square root keeps a part of the order
to the words either way. Reciprocal ranks, and scaling each leg by the best and worst it found,
both throw away how sure a leg is and were measured to do worse (query/README.md).

Arrays in, arrays out: this file knows rows as numbers and nothing of stores or records.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

VECTOR_WEIGHT: Final = 0.7

# (a, b) of the logistic, by which legs took part: fitted on the development conversations.
CALIBRATION: Final = {
    "lexical": (-2.99, 2.27),
    "vector": (-3.25, 2.56),
    "hybrid": (-3.22, 1.77),
}


class Candidates(NamedTuple):
    """Rows (n,) with their raw measures; NaN where a leg does not know the row."""

    rows: NDArray[np.uint32]
    bm25: NDArray[np.float32]
    similarity: NDArray[np.float32]


class Fused(NamedTuple):
    """Contributions (n,) of each stage, in the order of the candidates' rows."""

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
    similarity = np.full(len(rows), np.nan, np.float32)
    bm25[np.searchsorted(rows, lexical[0])] = lexical[1]
    similarity[np.searchsorted(rows, vector[0])] = vector[1]
    return Candidates(rows, bm25, similarity)


def fuse(candidates: Candidates, best_possible: float) -> Fused:
    """What each leg adds to each row; a leg that does not know a row adds nothing.

    ``best_possible``: the BM25 of a row that holds every term of the question at saturation.
    """
    share = np.nan_to_num(candidates.bm25) / np.float32(max(best_possible, 1e-9))
    lexical = np.sqrt(np.clip(share, 0, 1)).astype(np.float32)
    vector = np.float32(VECTOR_WEIGHT) * np.nan_to_num(candidates.similarity)
    return Fused(lexical, vector.astype(np.float32))


def relevance(total: NDArray[np.float32], mode: str) -> NDArray[np.float32]:
    """(n,) estimates in [0, 1] that a row is relevant, ascending with ``total``.

    ``mode`` names the legs that took part. The estimates are calibrated: of rows scored 0.2 on
    the development data, about a fifth were evidence.
    """
    bias, slope = CALIBRATION[mode]
    estimate: NDArray[np.float32] = (1 / (1 + np.exp(-(bias + slope * total)))).astype(np.float32)
    return estimate
