"""``recall``: from a question to ranked memories, in one snapshot.

The pipeline: select the rows the caller may see and the filter passes; ask the lexical and the
vector leg for their best among exactly those rows; fuse; read the records of the winners. Each
stage says what it did in ``plan`` when asked to explain. What cannot run (no embedding model)
degrades the answer and is said in ``degraded``; it never fails silently.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import settings, validate
from memdb.engine import Engine
from memdb.errors import EmbedderUnavailable, InvalidArgument, MissingDependency
from memdb.query import filters, fusion
from memdb.query.lexical import K1, LexicalQuery
from memdb.reader import MemoryReader
from memdb.second_look import look_again
from memdb.space_vectors import SpaceVectors
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader
from memdb.types import Hit, Hits, Why

MODES = ("vector", "lexical", "hybrid")
_CANDIDATES = 200  # of each leg; what fusion may reorder

_Scored = tuple[NDArray[np.uint32], NDArray[np.float32]]
_NOTHING: _Scored = (np.empty(0, np.uint32), np.empty(0, np.float32))


class Question(NamedTuple):
    """A checked call of ``recall``."""

    query: str | None
    k: int
    condition: filters.Filter | None
    mode: str
    as_of: datetime | None
    namespace: str
    space: str | None
    vector: NDArray[np.float32] | None
    min_score: float | None
    exact: bool
    explain: bool


class Recaller:
    """Answers questions over one engine; stateless between calls."""

    def __init__(self, engine: Engine, reader: MemoryReader) -> None:
        self._engine = engine
        self._reader = reader

    def check(
        self,
        query: str | None,
        *,
        k: int,
        where: Mapping[str, Any] | None,
        mode: str,
        as_of: validate.TimeLike | None,
        namespace: str,
        space: str | None,
        vector: Any,
        min_score: float | None,
        exact: bool,
        explain: bool,
    ) -> Question:
        """Check every argument of ``recall``; raises ``InvalidArgument``, ``FilterError``."""
        if mode not in MODES:
            raise InvalidArgument(f"mode must be one of {', '.join(MODES)}", field="mode")
        if query is None and vector is None:
            raise InvalidArgument("query or vector is needed", field="query")
        if query is not None:
            validate.string(query, "query", settings.MAX_QUERY_BYTES)
        if mode == "lexical" and query is None:
            raise InvalidArgument("mode='lexical' needs a query", field="query")
        zone = self._engine.zone
        return Question(
            query,
            validate.integer(k, "k", 1, settings.MAX_K),
            self._reader.compile(where),
            mode,
            None if as_of is None else validate.instant_of(as_of, "as_of", zone),
            namespace,
            validate.optional_string(space, "space"),
            None if vector is None else validate.one_vector(vector, None),
            validate.unit_interval(min_score, "min_score"),
            exact,
            explain,
        )

    def recall(self, question: Question) -> Hits:
        """Exactly min(k, matches) hits, best first; fewer only through ``min_score``."""
        started = time.perf_counter()
        engine = self._engine
        plan: dict[str, Any] = {"mode": question.mode, "times_ms": {}}
        vector, degraded = self._query_vector(question)
        _lap(plan, "embed", started)
        now = engine.now()
        with engine.store.read() as txn:
            lap = time.perf_counter()
            allowed = self._reader.select(
                txn,
                question.namespace,
                question.condition,
                now=now,
                valid_at=question.as_of or now,
                plan=plan,
            )
            plan["allowed"] = len(allowed)
            lap = _lap(plan, "select", lap)
            depth = max(question.k, _CANDIDATES)
            words = self._lexical(txn, question)
            worded = _NOTHING if words is None else words.search(allowed, depth)
            lap = _lap(plan, "lexical", lap)
            near, space = self._vector(txn, question, vector, allowed, depth, plan)
            lap = _lap(plan, "vector", lap)
            candidates = fusion.join(worded, near)
            if words is not None:
                _complete_bm25(words, candidates)
            if space is not None and vector is not None and words is not None:
                self._complete_cosines(txn, space, vector, candidates)
            plan["candidates"] = {"lexical": len(worded[0]), "vector": len(near[0])}
            hits = self._rank(txn, question, candidates, words)
            _lap(plan, "rank", lap)
        _lap(plan, "total", started)
        search_id = engine.new_id(now)
        return Hits(tuple(hits), search_id, plan if question.explain else {}, degraded)

    # --- legs ---------------------------------------------------------------------------

    def _query_vector(self, question: Question) -> tuple[NDArray[np.float32] | None, str | None]:
        if question.mode == "lexical":
            return None, None
        if question.vector is not None:
            return question.vector, None
        try:
            embedded = self._engine.embedding.embed([question.query or ""], "query")
        except (EmbedderUnavailable, MissingDependency) as error:
            if question.mode == "vector":
                raise
            return None, f"lexical only: {error.message}"
        if embedded is None and question.mode == "vector":
            raise InvalidArgument("the database embeds nothing; pass vector=", field="vector")
        return (None, None) if embedded is None else (embedded[0], None)

    def _lexical(self, txn: Reader, question: Question) -> LexicalQuery | None:
        if question.mode == "vector" or question.query is None:
            return None
        return LexicalQuery(txn, self._engine.analyser.query(question.query, txn.digest))

    def _vector(
        self,
        txn: Reader,
        question: Question,
        vector: NDArray[np.float32] | None,
        allowed: BitMap,
        depth: int,
        plan: dict[str, Any],
    ) -> tuple[_Scored, SpaceVectors | None]:
        """Similarities: cosines, inner products, or negated squared distances."""
        if vector is None:
            return _NOTHING, None
        record = self._space(txn, question)
        if record is None:
            return _NOTHING, None
        validate.one_vector(vector, record.dim)
        space = self._engine.vectors(record)
        k = question.k if question.mode == "vector" and record.profile != "nano" else depth
        found = space.search(txn, vector, k, allowed, exact_search=question.exact)
        found = look_again(self._engine, txn, space, vector, found, plan)
        return (found.rows, similarity(found.distances, record.metric)), space

    def _space(self, txn: Reader, question: Question) -> SpaceRecord | None:
        if question.space is not None:
            return self._engine.require_space(txn, question.space)
        return self._engine.space_named(txn, None)

    def _complete_cosines(
        self,
        txn: Reader,
        space: SpaceVectors,
        vector: NDArray[np.float32],
        candidates: fusion.Candidates,
    ) -> None:
        """Compute the similarity of candidates that only the words found."""
        missing = np.flatnonzero(np.isnan(candidates.similarity))
        rows = candidates.rows[missing].tolist()
        if not rows:
            return
        fetched = space.fetch(txn, rows)
        known = [place for place, row in zip(missing, rows, strict=True) if row in fetched]
        if known:
            matrix = np.stack([fetched[int(candidates.rows[place])] for place in known])
            distances = space.distances(vector, matrix)
            candidates.similarity[known] = similarity(distances, space.record.metric)

    # --- ranking ------------------------------------------------------------------------

    def _rank(
        self,
        txn: Reader,
        question: Question,
        candidates: fusion.Candidates,
        words: LexicalQuery | None,
    ) -> list[Hit]:
        if not len(candidates.rows):
            return []
        best_possible = 0.0 if words is None else words.total_mass * (K1 + 1)
        fused = fusion.fuse(candidates, best_possible)
        relevance = fusion.relevance(fused.total, _legs(candidates, question, words))
        order = np.lexsort((candidates.rows, -fused.total))
        if question.min_score is not None:
            order = order[relevance[order] >= question.min_score]
        order = order[: question.k]
        rows = candidates.rows[order].tolist()
        memories = self._engine.records.get_many(txn, sorted(rows))
        terms = [{} for _ in rows] if words is None else words.explain(rows)
        hits = []
        for place, row, held in zip(order, rows, terms, strict=True):
            stages = {"lexical": float(fused.lexical[place]), "vector": float(fused.vector[place])}
            why = Why(
                cosine=_number(candidates.similarity[place]),
                bm25=_number(candidates.bm25[place]),
                terms=tuple(held),
                stages=stages,
            )
            hits.append(Hit(memories[row], float(relevance[place]), why))
        return hits

    # --- by distance --------------------------------------------------------------------

    def within(
        self,
        radius: float,
        *,
        query: str | None,
        vector: Any,
        where: Mapping[str, Any] | None,
        namespace: str,
        space: str | None,
    ) -> Hits:
        """Every visible memory at distance <= ``radius``, closest first."""
        if isinstance(radius, bool) or not isinstance(radius, int | float) or math.isnan(radius):
            raise InvalidArgument("radius must be a number", field="radius")
        question = self.check(
            query,
            k=1,
            where=where,
            mode="vector",
            as_of=None,
            namespace=namespace,
            space=space,
            vector=vector,
            min_score=None,
            exact=True,
            explain=False,
        )
        engine = self._engine
        asked, _ = self._query_vector(question)
        now = engine.now()
        with engine.store.read() as txn:
            record = self._space(txn, question)
            if record is None or asked is None:
                return Hits((), engine.new_id(now))
            validate.one_vector(asked, record.dim)
            allowed = self._reader.select(txn, namespace, question.condition, now=now, valid_at=now)
            near = engine.vectors(record).within(txn, asked, float(radius), allowed)
            cosines = similarity(near.distances, record.metric)
            unknown = np.full(len(near.rows), np.nan, np.float32)
            fused = fusion.fuse(fusion.Candidates(near.rows, unknown, cosines), 0.0)
            relevance = fusion.relevance(fused.total, "vector")
            memories = engine.records.get_many(txn, sorted(near.rows.tolist()))
        hits = tuple(
            Hit(memories[row], float(score), Why(cosine=float(cosine)))
            for row, score, cosine in zip(near.rows.tolist(), relevance, cosines, strict=True)
        )
        return Hits(hits, engine.new_id(now))


def _complete_bm25(words: LexicalQuery, candidates: fusion.Candidates) -> None:
    """Score the rows that only the vector found; a row without a query term stays unknown."""
    missing = np.flatnonzero(np.isnan(candidates.bm25))
    scores = words.scores_of(candidates.rows[missing])
    candidates.bm25[missing] = np.where(scores > 0, scores, np.nan)


def _legs(candidates: fusion.Candidates, question: Question, words: LexicalQuery | None) -> str:
    """Which legs took part, for the calibration."""
    if words is None:
        return "vector"
    unseen = question.mode == "lexical" or bool(np.isnan(candidates.similarity).all())
    return "lexical" if unseen else "hybrid"


def similarity(distances: Any, metric: str) -> Any:
    """Larger is closer: a cosine, an inner product, or 1 / (1 + squared distance)."""
    if metric == "l2":
        return 1 / (1 + distances)
    return 1 - distances if metric == "cosine" else -distances


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _lap(plan: dict[str, Any], stage: str, since: float) -> float:
    now = time.perf_counter()
    plan["times_ms"][stage] = round((now - since) * 1e3, 3)
    return now
