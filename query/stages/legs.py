"""The two legs: the question's words, and its meaning. They find, and they weigh what was found.

Each leg also measures what only the other found, so that a candidate's parts do not depend on
how it was found. What a measure is worth is ``fusion``'s.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.query import fusion
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
        bm25 = _among(candidates.rows, *self.found)
        missing = np.flatnonzero(np.isnan(bm25))
        scores = self._words.scores_of(candidates.rows[missing])
        bm25[missing] = np.where(scores > 0, scores, np.nan)
        candidates.measures["bm25"] = bm25
        return fusion.lexical_part(bm25, self._words.held_weights(), legs(self._asked))

    def say(self, candidates: Candidates, place: int) -> str:
        held = self._words.explain([int(candidates.rows[place])])[0] if self._words else {}
        return "holds " + ", ".join(held) if held else "holds none of the question's words"

    def report(self) -> dict[str, Any]:
        if self._words is None:
            return {}
        return {
            "matched_mass": round(self._words.matched_mass, 3),
            "counted": self._words.docs,
            "postings": self._words.postings,
            "way": self._words.way(self._asked.allowed),
        }


class Vector(Stage):
    """How close a memory's vector is to the question's."""

    name: ClassVar[str] = "vector"
    needed: ClassVar[bool] = True
    wide: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._meaning = asked.meaning
        self.found: tuple[Rows, NDArray[np.float32]] = (NO_ROWS, _NO_SCORES)
        self._among = fusion.Background(0.0, 0.0, 0)
        self._limit = 0

    def expects(self) -> int | None:
        return None if self._meaning is None else self._meaning.matches()

    def find(self, limit: int) -> Rows:
        if self._meaning is not None:
            self._limit = limit
            self.found = self._meaning.nearest(limit)
            self._among = fusion.background(self._meaning.sample())
        return self.found[0]

    def weigh(self, candidates: Candidates) -> Parts | None:
        if self._meaning is None:
            return None
        known = _among(candidates.rows, *self.found)
        missing = np.flatnonzero(np.isnan(known))
        if len(missing):
            known[missing] = self._meaning.of(candidates.rows[missing])
        candidates.measures["similarity"] = known
        return fusion.vector_part(known, self._among, legs(self._asked))

    def say(self, candidates: Candidates, place: int) -> str:
        value = candidates.measures["similarity"][place]
        if np.isnan(value):
            return "has no vector"
        usual = f"where {self._among.mean:.2f} is usual" if self._among.sampled else "of few"
        return f"similarity {value:.2f} to the question, {usual}"

    def report(self) -> dict[str, Any]:
        mean, spread, count = self._among
        if not count or self._meaning is None:
            return {}
        about = {"usual": round(mean, 3), "spread": round(spread, 3), "sample": count}
        return {**about, **self._meaning.plan(self._limit)}


def _among(rows: Rows, found: Rows, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) the values of those of ``rows`` that were found, NaN of the others."""
    looked_up = np.full(len(rows), np.nan, np.float32)
    if len(found):
        order = np.argsort(found)
        places = np.minimum(np.searchsorted(found, rows, sorter=order), len(found) - 1)
        places = order[places]
        known = found[places] == rows
        looked_up[known] = values[places[known]]
    return looked_up


def legs(asked: Asked) -> str:
    """Which legs take part, for the calibration."""
    if asked.words is None:
        return "vector"
    return "lexical" if asked.meaning is None else "hybrid"
