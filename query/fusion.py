"""How surprising a match is: the one currency in which words and meaning add up.

A leg's part is -ln of the chance that a memory which has nothing to do with the question matches
it as well by accident. Both legs are then in nats, and independent surprises add (Fisher 1925).

    words    S is the sum, over the question's words that an unrelated memory happens to hold, of
             their weights w (idf), each held with chance p = exp(-w). By Chernoff's bound
             -ln P(S >= s) >= max over h of  h s - K(h),  K(h) = sum ln(1 + p (exp(h w) - 1))
             h goes from 1/4 to 1, and K is counted from K(1/4): the bound itself is 0 for all
             that is no more than chance, and would put what shares a common word with what
             shares none
    meaning  similarities of unrelated memories are taken as normal; their mean and spread come
             from a sample of the memories asked, and z is how far above them one lies. A small
             sample knows the spread badly: z is that of Student's t (Wallace 1959).
             -ln P(Z >= z) ~ z^2 / 2 + ln((z + sqrt(z^2 + 8 / pi)) / sqrt(2 / pi)), z >= 0
             (within 5 % of the exact value), continued below 0 as the line that touches it there

Of N memories, N exp(-surprise) match as well by accident: the E-value of sequence search (Altschul
1990), whose logarithm the base brings. So each question decides how much a leg counts. A rare word
weighs more than a common one, a long question's chance matches are expected and weigh little, a
similarity that stands out weighs more than one in a crowd, in whatever range a model's lie.

Numbers and arrays in, arrays out: this file knows no rows, no stores and no records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Parts = NDArray[np.float64]

_STEPS: Final = np.linspace(0.25, 1, 7)  # of h
_SLOPE_AT_0: Final = math.sqrt(2 / math.pi)
_FAR: Final = 8 / math.pi
_LEAST_SPREAD: Final = 1e-6  # of memories that are all alike

# Log-odds a nat of surprise, and nats a nat of the vector leg counts: query/README.md.
VECTOR_WEIGHT: Final = 0.7
# (a, b): log-odds of a candidate that ln(memories) nats say nothing of, and of each nat; by which
# legs take part.
CALIBRATION: Final = {
    "lexical": (-2.08, 0.295),
    "vector": (-1.70, 0.45),
    "hybrid": (-2.82, 0.149),
}


class Background(NamedTuple):
    """Similarities of ``sampled`` memories picked without regard to the question."""

    mean: float
    spread: float
    sampled: int


def background(sample: NDArray[np.float32]) -> Background:
    """Of a sample (n,) of similarities; NaN where one is unknown."""
    known = sample.astype(np.float64)
    # The sums behind mean() and std(), which spend longer on their arguments than on so few.
    total = float(np.add.reduce(known))
    if math.isnan(total):
        known = known[~np.isnan(known)]
        total = float(np.add.reduce(known))
    count = len(known)
    if not count:
        return Background(0.0, 0.0, 0)
    mean = total / count
    if count < 2:
        return Background(mean, 0.0, count)
    known -= mean
    known *= known
    return Background(mean, math.sqrt(float(np.add.reduce(known)) / (count - 1)), count)


def base(legs: str, memories: int) -> float:
    """The log-odds of a candidate of which nothing is known, of so many; ``legs`` taking part."""
    bias, slope = CALIBRATION[legs]
    return bias - slope * math.log(max(memories, 1))


def unrelated(legs: str) -> float:
    """The log-odds that the legs add to a memory which has nothing to do with the question: it
    holds no word, and is as similar as is usual."""
    return CALIBRATION[legs][1] * VECTOR_WEIGHT * math.log(2) if legs != "lexical" else 0.0


def lexical_part(bm25: NDArray[np.float32], idfs: Sequence[float], legs: str) -> Parts:
    """(n,) log-odds of words; none where ``bm25`` is NaN.

    ``idfs``: the weights of the question's words that some memory holds.
    """
    weights = np.asarray(idfs, np.float64)
    expected = np.log1p(
        np.exp(-weights)[None, :] * np.expm1(_STEPS[:, None] * weights[None, :])
    ).sum(axis=1)
    expected -= expected[0]
    held = _or_none(bm25.astype(np.float64))
    surprise: Parts = (_STEPS[:, None] * held[None, :] - expected[:, None]).max(axis=0)
    return CALIBRATION[legs][1] * surprise


def vector_part(similarity: NDArray[np.float32], among: Background, legs: str) -> Parts:
    """(n,) log-odds of meaning; none where ``similarity`` is NaN, or nothing to compare with."""
    if among.sampled < 2:
        return np.zeros(len(similarity))
    z = standing_out(similarity.astype(np.float64), among)
    positive = np.maximum(z, 0)
    above = positive**2 / 2 + np.log((positive + np.sqrt(positive**2 + _FAR)) / _SLOPE_AT_0)
    surprise = np.where(z >= 0, above, math.log(2) + _SLOPE_AT_0 * z)
    part: Parts = CALIBRATION[legs][1] * VECTOR_WEIGHT * surprise
    return _or_none(part)


def _or_none(part: Parts) -> Parts:
    """0 where ``part``, which is changed, is NaN."""
    part[np.isnan(part)] = 0.0
    return part


def standing_out(similarity: Parts, among: Background) -> Parts:
    """(n,) standard normal deviates as unlikely as these similarities among the background."""
    n, freedom = among.sampled, among.sampled - 1
    t = (similarity - among.mean) / (max(among.spread, _LEAST_SPREAD) * math.sqrt(1 + 1 / n))
    normal = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t**2 / freedom))
    deviates: Parts = np.sign(t) * normal
    return deviates
