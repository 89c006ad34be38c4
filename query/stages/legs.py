"""The two legs: the question's words, and its meaning. They find, and they weigh what was found.

Each leg also measures what only the other found, so that a candidate's parts do not depend on
how it was found. How much a leg counts is ``fusion``'s.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.query import fusion
from memdb.query.lexical import K1
from memdb.query.pipeline import NO_ROWS, Candidates, Parts, Rows, Stage
from memdb.query.stages.asked import Asked

_NO_SCORES: NDArray[np.float32] = np.empty(0, np.float32)


class Lexical(Stage):
    """BM25 of the question's words."""

    name: ClassVar[str] = "lexical"
    needed: ClassVar[bool] = True
    wide: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._words = asked.words
        self.found: tuple[Rows, NDArray[np.float32]] = (NO_ROWS, _NO_SCORES)

    def expects(self) -> int | None:
        if self._words is None:
            return None
        touched = sum(self._words.document_frequencies().values())
        return min(touched, len(self._asked.allowed))

    def find(self, limit: int) -> Rows:
        if self._words is not None:
            self.found = self._words.search(self._asked.allowed, limit)
        return self.found[0]

    def weigh(self, candidates: Candidates) -> Parts | None:
        if self._words is None:
            return None
        bm25 = np.full(len(candidates), np.nan, np.float32)
        bm25[np.searchsorted(candidates.rows, self.found[0])] = self.found[1]
        missing = np.flatnonzero(np.isnan(bm25))
        scores = self._words.scores_of(candidates.rows[missing])
        bm25[missing] = np.where(scores > 0, scores, np.nan)
        candidates.measures["bm25"] = bm25
        return fusion.lexical_part(bm25, self._words.total_mass * (K1 + 1), legs(self._asked))

    def say(self, candidates: Candidates, place: int) -> str:
        held = self._words.explain([int(candidates.rows[place])])[0] if self._words else {}
        return "holds " + ", ".join(held) if held else "holds none of the question's words"

    def report(self) -> dict[str, Any]:
        if self._words is None:
            return {}
        return {"matched_mass": round(self._words.matched_mass, 3)}


class Vector(Stage):
    """How close a memory's vector is to the question's."""

    name: ClassVar[str] = "vector"
    needed: ClassVar[bool] = True
    wide: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._meaning = asked.meaning
        self.found: tuple[Rows, NDArray[np.float32]] = (NO_ROWS, _NO_SCORES)

    def expects(self) -> int | None:
        return None if self._meaning is None else self._meaning.matches()

    def find(self, limit: int) -> Rows:
        if self._meaning is not None:
            self.found = self._meaning.nearest(limit)
        return self.found[0]

    def weigh(self, candidates: Candidates) -> Parts | None:
        if self._meaning is None:
            return None
        known = np.full(len(candidates), np.nan, np.float32)
        known[np.searchsorted(candidates.rows, self.found[0])] = self.found[1]
        missing = np.flatnonzero(np.isnan(known))
        if len(missing):
            known[missing] = self._meaning.of(candidates.rows[missing])
        candidates.measures["similarity"] = known
        return fusion.vector_part(known, legs(self._asked))

    def say(self, candidates: Candidates, place: int) -> str:
        value = candidates.measures["similarity"][place]
        return "has no vector" if np.isnan(value) else f"similarity {value:.2f} to the question"


def legs(asked: Asked) -> str:
    """Which legs take part, for the calibration."""
    if asked.words is None:
        return "vector"
    return "lexical" if asked.meaning is None else "hybrid"
