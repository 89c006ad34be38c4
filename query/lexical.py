"""BM25 over the postings: which rows a question's words point at, and how strongly.

    idf(t)   = ln(1 + (N - df + .5) / (df + .5))
    score(r) = sum over t of qtf idf(t) (k1 + 1) tf / (tf + k1 (1 - b + b length / mean length))

k1 = 1.2, b = .75 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3;
the idf with 1 + is Lucene's, never negative). Scores are added up in a dense float32 array a thread
keeps, cleared where it was touched: in numpy that beats MaxScore, which skips in Python.

``allowed`` decides what is returned and nothing else. What is *counted* (N, df, mean length) is
every row that has postings or, where ``population`` is given, those rows alone: then rows outside
it change neither order nor score, whatever they hold.

This file knows rows, hashed terms and bitmaps; no text, no records, no vectors.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.storage.environment import ReadTxn
from memdb.storage.kernels import KERNELS
from memdb.storage.postings import ENTRY, LENGTHS, PostingsReader

K1: Final = 1.2
B: Final = 0.75

_SAMPLE: Final = 4096  # rows looked at for a lower bound of the last place
_SORT_AT_MOST: Final = 20_000  # beyond, a dense membership table is cheaper than a bitmap
_DENSE_SHARE: Final = 8  # with more than 1 / 8 of all rows touched, scan all scores

Rows = NDArray[np.uint32]
Scores = NDArray[np.float32]


class _Matched(NamedTuple):
    """One term's postings, of distinct rows below ``end``, and the greatest part of a score."""

    term: str
    df: int
    idf: float
    postings: bytes
    end: int
    weight: float

    @property
    def rows(self) -> NDArray[np.uint32]:
        """(df,), in no particular order."""
        found: NDArray[np.uint32] = np.frombuffer(self.postings, ENTRY)["row"]
        return found


class _Scratch(threading.local):
    """Each thread's accumulator: all zeros between uses."""

    def __init__(self) -> None:
        self.scores: Scores = np.zeros(0, np.float32)

    def at_least(self, size: int) -> Scores:
        if len(self.scores) < size:
            self.scores = np.zeros(max(size, 2 * len(self.scores)), np.float32)
        return self.scores


_scratch = _Scratch()


class LexicalQuery:
    """A question looked up in one snapshot; usable while its transaction is open and after."""

    def __init__(
        self,
        txn: ReadTxn,
        terms: Sequence[tuple[str, bytes, int]],
        *,
        population: BitMap | None = None,
    ) -> None:
        reader = PostingsReader(txn)
        counted = None if population is None else _mask(population)
        if counted is None:
            docs, total = reader.statistics
        else:
            every = reader.every_row()
            every = every[_inside(counted, every["row"])]
            docs, total = len(every), int(LENGTHS[every["length"]].sum())
        self.docs = docs
        mean = max(1.0, total / docs) if docs else 1.0
        self._norm: Scores = (K1 * (1 - B + B * LENGTHS / mean)).astype(np.float32)
        self._terms: list[_Matched] = []
        self._unmatched: list[tuple[str, float]] = []
        for term, term_hash, count in terms:
            packed = reader.packed(term_hash)
            if counted is not None:
                entries = np.frombuffer(packed, ENTRY)
                packed = entries[_inside(counted, entries["row"])].tobytes()
            df = len(packed) // ENTRY.itemsize
            idf = float(np.log1p((max(docs, df) - df + 0.5) / (df + 0.5)))
            if not df:
                self._unmatched.append((term, idf))
                continue
            weight = count * idf * (K1 + 1)
            end = KERNELS.postings_end(packed)
            self._terms.append(_Matched(term, df, idf, packed, end, weight))

    # --- what the lexicon knows of the question -----------------------------------------

    @property
    def total_mass(self) -> float:
        """Sum of idf over the question's distinct terms; an unknown one counts as df = 0."""
        return sum(one.idf for one in self._terms) + sum(idf for _, idf in self._unmatched)

    @property
    def matched_mass(self) -> float:
        """Share of ``total_mass`` on terms that some counted row holds, in [0, 1]."""
        total = self.total_mass
        return sum(one.idf for one in self._terms) / total if total else 0.0

    def held_weights(self) -> list[float]:
        """The idf of each of the question's terms that a counted row holds."""
        return [one.idf for one in self._terms]

    def document_frequencies(self) -> dict[str, int]:
        """Counted rows that hold each term."""
        known = {one.term: one.df for one in self._terms}
        return known | {term: 0 for term, _ in self._unmatched}

    def way(self, allowed: BitMap) -> str:
        """How ``search`` chooses among the rows: from those allowed, or from the terms' postings,
        whichever are fewer."""
        return "allowed rows" if len(allowed) <= self.postings else "postings"

    @property
    def postings(self) -> int:
        """Entries of all terms together; each is added up once."""
        return sum(one.df for one in self._terms)

    # --- ranking ------------------------------------------------------------------------

    def search(self, allowed: BitMap, limit: int) -> tuple[Rows, Scores]:
        """The best ``limit`` of the allowed rows that hold a term: rows (n,), scores (n,).

        Best first, equal scores by row; n = min(limit, matches).
        """
        if not self._terms or limit <= 0 or not allowed:
            return np.empty(0, np.uint32), np.empty(0, np.float32)
        scores = self._accumulate()
        try:
            rows = self._candidates(scores, allowed, limit)
            found = scores[rows]
        finally:
            self._clear(scores)
        if len(rows) > limit:
            worst = np.partition(found, len(found) - limit)[len(found) - limit]
            rows, found = rows[found >= worst], found[found >= worst]  # ties at the edge stay in
        best = np.lexsort((rows, -found))[:limit]
        return rows[best].astype(np.uint32), found[best]

    def matches(self, allowed: BitMap) -> BitMap:
        """The allowed rows that hold a term."""
        touched = BitMap()
        for one in self._terms:
            touched |= _bitmap(one.rows)
        return touched & allowed

    def scores_of(self, rows: Rows | Sequence[int]) -> Scores:
        """The scores of given rows, (n,); 0 where no term is in it."""
        wanted = np.asarray(rows, dtype=np.int64)
        if not self._terms or not len(wanted):
            return np.zeros(len(wanted), np.float32)
        scores = self._accumulate(int(wanted.max()) + 1)
        try:
            return scores[wanted]
        finally:
            self._clear(scores)

    def coverage(self, rows: Rows | Sequence[int]) -> Scores:
        """(n,) which share of the question's idf each of ``rows`` holds, however often."""
        wanted = np.asarray(rows, dtype=np.int64)
        found = np.zeros(len(wanted), np.float32)
        if not self._terms or not len(wanted):
            return found
        held = _scratch.at_least(max(self._end, int(wanted.max()) + 1))
        try:
            for one in self._terms:
                held[one.rows] += np.float32(one.idf)
            found = held[wanted] / np.float32(self.total_mass)
        finally:
            self._clear(held)
        return found

    def explain(self, rows: Rows | Sequence[int]) -> list[dict[str, float]]:
        """For each row, what each term it holds adds to its score, largest first."""
        wanted = np.asarray(rows, dtype=np.int64)
        parts: list[dict[str, float]] = [{} for _ in range(len(wanted))]
        if not self._terms or not parts:
            return parts
        scores = _scratch.at_least(max(self._end, int(wanted.max()) + 1))
        for one in self._terms:
            KERNELS.add_scores(one.postings, self._norm, one.weight, scores)
            try:
                found = scores[wanted].tolist()
            finally:
                KERNELS.clear_scores(one.postings, scores)
            for held, score in zip(parts, found, strict=True):
                if score:
                    held[one.term] = score
        return [
            dict(sorted(one.items(), key=lambda item: (-item[1], item[0]))) if len(one) > 1 else one
            for one in parts
        ]

    def _accumulate(self, size: int = 0) -> Scores:
        """The sums of all terms' parts by row, with room for ``size`` rows at least."""
        scores = _scratch.at_least(max(self._end, size))
        for one in self._terms:
            KERNELS.add_scores(one.postings, self._norm, one.weight, scores)
        return scores

    @property
    def _end(self) -> int:
        return max(one.end for one in self._terms)

    def _clear(self, scores: Scores) -> None:
        for one in self._terms:
            KERNELS.clear_scores(one.postings, scores)

    def _candidates(self, scores: Scores, allowed: BitMap, limit: int) -> NDArray[np.int64]:
        """Distinct allowed rows with a score, among them the best ``limit``."""
        touched = self.postings
        if self.way(allowed) == "allowed rows":
            rows = _rows_of(allowed)
            rows = rows[: np.searchsorted(rows, len(scores))]
            return rows[scores[rows] > 0]
        bound = self._lower_bound(scores, allowed, limit)
        size = self._end
        if touched > size // _DENSE_SHARE:
            rows = np.flatnonzero(scores[:size] >= bound)
        else:
            parts = (one.rows.astype(np.int64) for one in self._terms)
            rows = np.concatenate([rows[scores[rows] >= bound] for rows in parts])
        if len(rows) > _SORT_AT_MOST and touched > size // _DENSE_SHARE:
            return rows[_inside(_mask(allowed), rows)]
        return _rows_of(_bitmap(rows) & allowed)

    def _lower_bound(self, scores: Scores, allowed: BitMap, limit: int) -> np.float32:
        """A positive score that at least ``limit`` allowed rows reach, or the smallest one.

        Any ``limit`` allowed rows with a term will do: those of the rarest term that has enough.
        """
        for one in sorted(self._terms, key=lambda term: term.df):
            if one.df < limit:
                continue
            step = max(1, one.df // max(_SAMPLE, 4 * limit))
            reached = scores[_rows_of(_bitmap(one.rows[::step]) & allowed)]
            if len(reached) >= limit:
                return np.float32(np.partition(reached, len(reached) - limit)[-limit])
        return np.float32(np.finfo(np.float32).smallest_subnormal)


def search(
    txn: ReadTxn,
    terms: Sequence[tuple[str, bytes, int]],
    *,
    allowed: BitMap,
    limit: int,
    population: BitMap | None = None,
) -> tuple[Rows, Scores]:
    """One look-up and its ranking; ``terms`` as ``Analyser.query`` gives them."""
    return LexicalQuery(txn, terms, population=population).search(allowed, limit)


def _bitmap(rows: NDArray[np.integer]) -> BitMap:
    return BitMap(array("I", rows.astype(np.uint32).tobytes()))


def _rows_of(rows: BitMap) -> NDArray[np.int64]:
    """(n,) ascending."""
    return np.frombuffer(rows.to_array(), np.uint32).astype(np.int64)


def _mask(rows: BitMap) -> NDArray[np.bool_]:
    """A dense membership table up to the greatest row; about 50 us for 100,000 rows."""
    if not rows:
        return np.zeros(0, np.bool_)
    mask = np.zeros(rows.max() + 1, np.bool_)
    mask[np.frombuffer(rows.to_array(), np.uint32)] = True
    return mask


def _inside(mask: NDArray[np.bool_], rows: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each of ``rows`` is in the mask's set."""
    if len(rows) and int(rows.max()) >= len(mask):
        inside = rows < len(mask)
        inside[inside] = mask[rows[inside]]
        return inside
    return mask[rows] if len(mask) else np.zeros(len(rows), np.bool_)
