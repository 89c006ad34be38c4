"""Confidence: whether the answer is there at all, told by how far the best stands out.

Where the answer is in the store, the memory that ranks first leaves the tenth behind; where it is
not, ten memories are about as good. What is measured is that margin, in log-odds, of what the wide
stages say of all candidates. It says something of the question and nothing of one memory, so it
adds nothing to any of them: neither order nor scores depend on it.

    confidence = 1 / (1 + exp(-(a + b margin)))

Of as many questions whose answer is there as questions whose answer is not, it estimates how often
the answer is among the first ten. How it was fitted, and how little may be asked of it: README.md
of the package.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import numpy as np

from memdb.query import fusion
from memdb.query.pipeline import BASE, Candidates, Parts, Stage
from memdb.query.stages.asked import Asked
from memdb.query.stages.legs import legs

BEHIND: Final = 10  # the place whose total the best is compared with
# (a, b), by the legs that take part; nearness of vectors alone is not judged.
FITTED: Final = {"lexical": (-1.17, 0.71), "hybrid": (-1.03, 0.87)}


class Confidence(Stage):
    """The margin of the best over the tenth, and what it says of the question."""

    name: ClassVar[str] = "confidence"
    wide: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._margin: float | None = None

    def weigh(self, candidates: Candidates) -> Parts | None:
        taking_part = legs(self._asked)
        if self._margin is None and taking_part in FITTED:  # the first time all are there
            self._margin = margin(candidates, taking_part)
            self._asked.confidence = estimate(self._margin, taking_part)
        return None

    def report(self) -> dict[str, Any]:
        if self._margin is None:
            return {}
        return {"margin": self._margin, "confidence": self._asked.confidence}


def margin(candidates: Candidates, taking_part: str) -> float:
    """Log-odds of the best over the tenth; over one that has nothing to do with the question where
    there are fewer, and 0 where there are none."""
    if not len(candidates):
        return 0.0
    totals = candidates.total()
    if len(totals) < BEHIND:
        behind = float(candidates.parts[BASE][0]) + fusion.unrelated(taking_part)
        return float(totals.max()) - behind
    first = np.partition(totals, len(totals) - BEHIND)[-BEHIND:]
    return float(first.max() - first[0])


def estimate(margin: float, taking_part: str) -> float:
    """The confidence in [0, 1] that a margin stands for; ascends with it."""
    bias, slope = FITTED[taking_part]
    return 1 / (1 + math.exp(-(bias + slope * margin)))
