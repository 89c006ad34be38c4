"""``recall``: from a question to ranked memories, in one snapshot.

Select the rows the caller may see and the filter passes; let the stages of ``query.stages`` find
and weigh among exactly those rows; read the records of the winners. This file wires: what a stage
does, and what it counts, is the query package's. Each stage says what it did in ``plan`` when
asked to explain. What cannot run (no embedding model) degrades the answer and is said in
``degraded``; it never fails silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter as clock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import facts, rerankers, settings, validate
from memdb.engine import Engine
from memdb.errors import EmbedderUnavailable, InvalidArgument, MissingDependency
from memdb.meaning import Embedded, Meaning, Replaced, comparable, similarity
from memdb.query import filters, fusion, stages
from memdb.query.lexical import LexicalQuery
from memdb.query.moment import Moment, moment_of, rows_at
from memdb.query.pipeline import Candidates, Pipeline, score_of
from memdb.query.stages.profile import ProfileStage
from memdb.query.time_expressions import TimeReading, read
from memdb.reader import MemoryReader
from memdb.second_look import SecondLook
from memdb.storage import lookups
from memdb.storage.spaces import NO_VECTOR, SpaceRecord
from memdb.storage.store import Reader
from memdb.types import Hit, Hits, Memory, Why, from_micros

MODES = ("vector", "lexical", "hybrid")
TIME_USES = ("boost", "filter", "off")
_CANDIDATES = 200  # of each leg; what the stages may reorder
_SHORTLIST = 32  # candidates of which records and neighbours are looked at
_NEARLY_ALL = 0.9  # of the rows that have words: with fewer, words count by what they tell of those
_FEW = 256  # matches: they say little of how rare a word is, and all that may be seen is counted


_NO_MEMORIES: tuple[Memory, ...] = ()


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
    stages: Mapping[str, bool]
    time: str = "boost"
    span: tuple[int | None, int | None] = (None, None)
    judge: rerankers.Judge | None = None
    min_confidence: float | None = None


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
        stages: Mapping[str, bool] | None = None,
        time: str = "boost",
        span: tuple[int | None, int | None] = (None, None),
        rerank: Any = None,
        min_confidence: float | None = None,
    ) -> Question:
        """Check every argument of ``recall``; raises ``InvalidArgument``, ``FilterError``."""
        if mode not in MODES:
            raise InvalidArgument(f"mode must be one of {', '.join(MODES)}", field="mode")
        if time not in TIME_USES:
            raise InvalidArgument(f"time must be one of {', '.join(TIME_USES)}", field="time")
        if query is None and vector is None:
            raise InvalidArgument("query or vector is needed", field="query")
        if query is not None:
            validate.string(query, "query", settings.MAX_QUERY_BYTES)
        if mode == "lexical" and query is None:
            raise InvalidArgument("mode='lexical' needs a query", field="query")
        if min_confidence is not None and (query is None or mode == "vector"):
            raise InvalidArgument(
                "min_confidence is told by a query's words; nearness of vectors alone tells none",
                field="min_confidence",
            )
        return Question(
            query,
            validate.integer(k, "k", 1, settings.MAX_K),
            self._reader.compile(where),
            mode,
            None if as_of is None else validate.instant_of(as_of, "as_of", self._engine.zone),
            namespace,
            validate.optional_string(space, "space"),
            None if vector is None else validate.one_vector(vector, None),
            validate.unit_interval(min_score, "min_score"),
            exact,
            explain,
            _switches(stages),
            time,
            span,
            rerankers.load(rerank),
            validate.unit_interval(min_confidence, "min_confidence"),
        )

    def recall(self, question: Question) -> Hits:
        """Exactly min(k, matches) hits, best first; fewer only through ``min_score``, and none
        through ``min_confidence``."""
        while True:
            try:
                return self._recall(question)
            except Replaced:
                continue

    def _recall(self, question: Question) -> Hits:
        started = clock()
        engine = self._engine
        plan: dict[str, Any] = {"mode": question.mode}
        if question.explain:
            plan["times_ms"] = {}
        now = engine.now()
        vector, degraded = self._query_vector(question, now)
        _lap(plan, "embed", started)
        with engine.store.read() as txn:
            lap = clock()
            reading = self._reading(txn, question, now)
            allowed = self._reader.select(
                txn,
                question.namespace,
                question.condition,
                now=now,
                valid_at=_valid_at(question, reading, now),
                plan=plan if question.explain else None,
            )
            if question.span != (None, None):
                allowed = rows_at(txn, engine.filters, allowed, *question.span)
            moment = self._moment(txn, reading, allowed, now, strict=question.time == "filter")
            if question.time == "filter" and moment is not None and moment.bounded:
                span = moment.start_us, moment.end_us
                allowed = rows_at(txn, engine.filters, allowed, *span, lasting=True)
            plan["allowed"] = len(allowed)
            lap = _lap(plan, "select", lap)
            asked = self._asked(txn, question, now, allowed, vector, moment, plan)
            lap = _lap(plan, "look up", lap)
            pipeline = Pipeline(stages.made_for(asked), question.stages, explain=question.explain)
            depth = question.k if question.mode == "vector" else max(question.k, _CANDIDATES)
            rows = pipeline.find(depth)
            plan["candidates"] = len(rows)
            lap = _lap(plan, "find", lap)
            counted = len(allowed) if asked.words is None else asked.words.docs
            base = fusion.base(stages.legs(asked), counted)
            ranked = pipeline.rank(rows, base, max(_SHORTLIST, question.k + _SHORTLIST // 2))
            lap = _lap(plan, "rank", lap)
            hits = self._hits(txn, question, asked, pipeline, ranked)
            _lap(plan, "read", lap)
        _lap(plan, "total", started)
        if question.explain:
            plan["stages"] = pipeline.log()
        search_id = engine.new_id(now)
        given = plan if question.explain else {}
        return Hits(tuple(hits), search_id, given, degraded, asked.confidence)

    # --- what the stages look at --------------------------------------------------------

    def _query_vector(
        self, question: Question, now: datetime
    ) -> tuple[Embedded | None, str | None]:
        """The question's vector, by the model of the space that is asked; and why there is none."""
        if question.mode == "lexical":
            return None, None
        if question.vector is not None:
            return Embedded(question.vector), None
        with self._engine.store.read() as txn:
            record = self._space(txn, question, now)
        embedding, texts = self._engine.embedding, [question.query or ""]
        try:
            if record is None:
                found = embedding.embed(texts, "query")
            else:
                found = embedding.embed_for(record, texts, "query")
        except (EmbedderUnavailable, MissingDependency) as error:
            if question.mode == "vector":
                raise
            return None, f"lexical only: {error.message}"
        if found is not None:
            return Embedded(found[0], NO_VECTOR if record is None else record.number), None
        if question.space is not None:
            whose = f"space {question.space!r} holds vectors that were brought; pass vector="
        else:
            whose = "the database embeds nothing; pass vector="
        if question.mode == "vector":
            raise InvalidArgument(whose, field="vector")
        return None, None if question.space is None else f"lexical only: {whose}"

    def _reading(self, txn: Reader, question: Question, now: datetime) -> TimeReading | None:
        """What the question says of time; nothing where only nearness of vectors is to count."""
        if question.query is None or question.time == "off":
            return None
        if question.mode == "vector" and question.time != "filter":
            return None
        moment = question.as_of or now
        return read(question.query, now=moment, zone=self._engine.zone_in(txn))

    def _moment(
        self,
        txn: Reader,
        reading: TimeReading | None,
        allowed: BitMap,
        now: datetime,
        *,
        strict: bool,
    ) -> Moment | None:
        if reading is None:
            return None
        engine = self._engine
        counted = engine.visible(txn, now)
        return moment_of(
            reading,
            txn=txn,
            filters=engine.filters,
            allowed=allowed,
            look_up=lambda text: LexicalQuery(
                txn, engine.analyser.query(text, txn.digest), population=counted
            ),
            memories=lambda rows: engine.records.get_many(txn, rows),
            strict=strict,
        )

    def _asked(
        self,
        txn: Reader,
        question: Question,
        now: datetime,
        allowed: BitMap,
        embedded: Embedded | None,
        moment: Moment | None,
        plan: dict[str, Any],
    ) -> stages.Asked:
        engine = self._engine
        words = None
        if question.mode != "vector" and question.query is not None:
            asked = question.query
            if moment is not None and moment.asked is not None:
                asked = moment.asked
            terms = engine.analyser.query(asked, txn.digest)
            counted = self._counted(txn, question.namespace, allowed, now)
            words = LexicalQuery(txn, terms, population=counted)
        meaning = None
        record = None if embedded is None else self._space(txn, question, now)
        if embedded is not None and record is not None:
            vector = comparable(embedded, record)
            space = engine.vectors(record)
            look = SecondLook(engine, txn, space, vector)
            meaning = Meaning(txn, space, vector, allowed, look, exact=question.exact)
            if look.top:
                plan["reembed"] = look.top
        return stages.Asked(
            text=question.query,
            k=question.k,
            mode=question.mode,
            namespace=question.namespace,
            now=now,
            as_of=question.as_of,
            zone=engine.zone_in(txn),
            txn=txn,
            allowed=allowed,
            filters=engine.filters,
            words=words,
            meaning=meaning,
            read=lambda rows: engine.records.get_many(txn, rows),
            moment=moment,
            judge=question.judge,
            visible=engine.visible(txn, now),
        )

    def _counted(
        self, txn: Reader, namespace: str, allowed: BitMap, now: datetime
    ) -> BitMap | None:
        """The rows by which it is told how rare a word is; None: all that have words."""
        engine = self._engine
        visible = engine.visible(txn, now)
        seen = allowed
        if len(allowed) < _FEW:
            seen = engine.subtree(txn, namespace)
            seen = seen if visible is None else seen & visible
        return seen if len(seen) < _NEARLY_ALL * engine.documents(txn, now) else visible

    def _space(self, txn: Reader, question: Question, now: datetime) -> SpaceRecord | None:
        """Where the vector is looked for. A space of which nothing may be seen is as none."""
        engine = self._engine
        name = question.space
        record = engine.space_named(txn, None) if name is None else engine.require_space(txn, name)
        visible = engine.visible(txn, now)
        if record is None or visible is None:
            return record
        having = engine.vectors(record).rows_with_vectors(txn)
        return record if having.intersect(visible) else None

    def _hits(
        self,
        txn: Reader,
        question: Question,
        asked: stages.Asked,
        pipeline: Pipeline,
        ranked: Candidates,
    ) -> list[Hit]:
        scores = score_of(ranked.total())
        count = min(question.k, len(ranked))
        if question.min_score is not None:
            count = min(count, int((scores >= question.min_score).sum()))  # they descend
        if question.min_confidence is not None:
            count *= (asked.confidence or 0.0) >= question.min_confidence
        best = ranked.taken(np.arange(count))
        memories = asked.memories(best.rows)
        rows = best.rows.tolist()
        terms: list[tuple[str, ...]] = [()] * count
        if asked.words is not None:
            terms = [tuple(held) for held in asked.words.explain(rows)]
        cosines = _numbers(best.measures.get("similarity"), count)
        bm25 = _numbers(best.measures.get("bm25"), count)
        counted = best.counted()
        parts = zip(*(part.tolist() for part in counted.values()), strict=True)
        found = zip(rows, scores.tolist(), cosines, bm25, terms, parts, strict=False)
        hits = []
        for place, (row, score, cosine, words, held, added) in enumerate(found):
            stages_of = dict(zip(counted, added, strict=True))
            said = pipeline.said(best, place) if question.explain else {}
            memory, earlier = memories[row], _NO_MEMORIES
            if stages_of.get(ProfileStage.name, 0.0) > 0:
                earlier = self._earlier(txn, question, memory, asked.now)
            hits.append(Hit(memory, score, Why(cosine, words, held, stages_of, said), earlier))
        return hits

    def _earlier(
        self, txn: Reader, question: Question, fact: Memory, now: datetime
    ) -> tuple[Memory, ...]:
        """The values that the fact had before, oldest first, of those that the caller may see."""
        key = lookups.profile_key(txn, fact.namespace, fact.subject or "", fact.key or "")
        visible = self._reader.select(txn, question.namespace, None, now=now)
        rows = [row for row in lookups.timeline(txn, key) if row in visible]
        known = self._engine.records.get_many(txn, rows)
        before = [known[row] for row in rows if known[row].id != fact.id]
        return tuple(one for one in before if facts.began(one) < facts.began(fact))

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
        while True:
            try:
                return self._within(question, float(radius))
            except Replaced:
                continue

    def _within(self, question: Question, radius: float) -> Hits:
        engine = self._engine
        now = engine.now()
        embedded, _ = self._query_vector(question, now)
        with engine.store.read() as txn:
            record = self._space(txn, question, now)
            if record is None or embedded is None:
                return Hits((), engine.new_id(now))
            asked = comparable(embedded, record)
            namespace = question.namespace
            allowed = self._reader.select(txn, namespace, question.condition, now=now, valid_at=now)
            near = engine.vectors(record).within(txn, asked, radius, allowed)
            cosines = similarity(near.distances, record.metric)
            look = SecondLook(engine, txn, engine.vectors(record), asked)
            meaning = Meaning(txn, engine.vectors(record), asked, allowed, look, exact=True)
            part = fusion.vector_part(cosines, fusion.background(meaning.sample()), "vector")
            relevance = score_of(fusion.base("vector", len(allowed)) + part)
            memories = engine.records.get_many(txn, sorted(near.rows.tolist()))
        hits = tuple(
            Hit(memories[row], float(score), Why(cosine=float(cosine)))
            for row, score, cosine in zip(near.rows.tolist(), relevance, cosines, strict=True)
        )
        return Hits(hits, engine.new_id(now))


def _valid_at(question: Question, reading: TimeReading | None, now: datetime) -> datetime:
    """When facts must be true: at ``as_of``, or at the end of a past time that is to filter."""
    if question.as_of is not None:
        return question.as_of
    if question.time != "filter" or reading is None or reading.end_us is None:
        return now
    return min(now, from_micros(reading.end_us - 1))


def _switches(given: Mapping[str, bool] | None) -> Mapping[str, bool]:
    """The stages argument, checked."""
    for name, on in (given or {}).items():
        if name not in stages.NAMES:
            known = ", ".join(stages.NAMES)
            raise InvalidArgument(f"no stage {name!r}; there are {known}", field="stages")
        if not isinstance(on, bool):
            raise InvalidArgument(f"stage {name} is True or False", field="stages")
    return dict(given or {})


def _numbers(measure: NDArray[np.float32] | None, count: int) -> list[float | None]:
    """The first ``count`` of a measure; None where it is unknown."""
    if measure is None:
        return [None] * count
    return [None if math.isnan(one) else one for one in measure[:count].tolist()]


def _lap(plan: dict[str, Any], stage: str, since: float) -> float:
    """Note what a stage took, where somebody will read it; the time now."""
    times = plan.get("times_ms")
    if times is None:
        return since
    now = clock()
    times[stage] = round((now - since) * 1e3, 3)
    return now
