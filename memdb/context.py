"""``context``: what is worth telling an agent about a question, gathered and packed.

In this order, until the budget is full: the facts that the question names, what recall found, the
neighbours of its best hits in their streams, the latest events. A neighbour often says what
a hit is about (the question that it answers); recent events say where things stand. Everything
comes from the rows that the recall itself may see. ``query.packing`` makes the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from pyroaring import BitMap

from memdb.engine import Engine
from memdb.errors import InvalidArgument
from memdb.ingest.embedders import Embedder
from memdb.query import filters
from memdb.query.packing import Counter, Piece, estimated_tokens, pack
from memdb.reader import MemoryReader
from memdb.storage import lookups
from memdb.storage.store import Reader
from memdb.types import Context, Hit, Hits, Memory, to_micros

FOUND: Final = 50  # hits asked for: some 2,000 tokens of one-line memories
_ACCOMPANIED: Final = 8  # best hits that bring their neighbours
_AHEAD: Final = 12  # hits that go before any neighbour
_TOGETHER: Final = timedelta(hours=6)  # farther apart, neighbours are two conversations
_EARLIER: Final = 3  # values of a fact before the one that is true
_RECENT: Final = 8
_LOOKED_AT: Final = 512  # latest events among which those visible are taken
ESTIMATE: Final = "estimate"


class CountedBy(NamedTuple):
    """How tokens are counted, what that is called, and whether the counts of lines add up."""

    count: Counter
    name: str
    adds_up: bool = False


def counter_of(given: Counter | None, embedder: Embedder | None) -> CountedBy:
    """By what the caller gave, else by the embedder's tokenizer if it is loaded, else by an
    estimate that errs high."""
    if given is not None:
        if not callable(given):
            raise InvalidArgument(
                "counter must be a callable from a text to its tokens", field="counter"
            )
        return CountedBy(given, getattr(given, "__qualname__", type(given).__qualname__))
    if embedder is None:
        return CountedBy(estimated_tokens, ESTIMATE)
    adds_up = bool(getattr(embedder, "counts_add_up", False))
    return CountedBy(embedder.count_tokens, embedder.name, adds_up)


class ContextMaker:
    """Gathers and packs over one engine; stateless between calls."""

    def __init__(self, engine: Engine, reader: MemoryReader) -> None:
        self._engine = engine
        self._reader = reader

    def make(
        self,
        hits: Hits,
        budget: int,
        by: CountedBy,
        *,
        condition: filters.Filter | None,
        namespace: str,
        as_of: datetime | None,
    ) -> Context:
        """The context of a question that found ``hits``; the rest of the arguments were its."""
        engine = self._engine
        now = engine.now()
        with engine.store.read() as txn:
            visible = self._reader.select(txn, namespace, condition, now=now, valid_at=as_of or now)
            pieces = [
                *_found(hits[:_AHEAD]),
                *self._neighbours(txn, hits[:_ACCOMPANIED], visible, now),
                *_found(hits[_AHEAD:]),
                *self._recent(txn, as_of or now, visible, now),
            ]
            zone = engine.zone_in(txn)
        made = pack(pieces, budget, by.count, by.name, zone, adds_up=by.adds_up)
        return Context(
            made.text, made.items, made.dropped, made.tokens, made.counter, hits.search_id
        )

    def _neighbours(
        self, txn: Reader, hits: Iterable[Hit], visible: BitMap, now: datetime
    ) -> Iterable[Piece]:
        """The memory before and the one after each hit in its stream, if close in time."""
        everything = self._engine.visible(txn, now)
        beside: list[tuple[Memory, int]] = []
        for hit in hits:
            memory = hit.memory
            if memory.stream is None or memory.position is None:
                continue
            prefix = lookups.stream_prefix(txn, memory.namespace, memory.stream)
            found = lookups.neighbours(txn, prefix, memory.position, everything)
            beside.extend((memory, row) for row in found if row in visible)
        known = self._engine.records.get_many(txn, sorted({row for _, row in beside}))
        for memory, row in beside:
            other = known[row]
            if other.stream == memory.stream and _close(memory.event_time, other.event_time):
                yield Piece(other, "neighbour")

    def _recent(
        self, txn: Reader, moment: datetime, visible: BitMap, now: datetime
    ) -> Iterable[Piece]:
        """The latest events that have happened by ``moment``."""
        entries = self._engine.filters.times_in_order(
            txn, "event_time", None, to_micros(moment) + 1, reverse=True
        )
        everything = self._engine.visible(txn, now)
        looked_at = (row for _, row in entries if everything is None or row in everything)
        rows = [row for row in islice(looked_at, _LOOKED_AT) if row in visible][:_RECENT]
        known = self._engine.records.get_many(txn, sorted(rows))
        return [Piece(known[row], "recent") for row in rows]


def _found(hits: Iterable[Hit]) -> Iterable[Piece]:
    """What recall found; a fact that the question names brings its latest earlier values."""
    for hit in hits:
        if not hit.why.stages.get("profile", 0.0) > 0:
            yield Piece(hit.memory, "relevant", hit.score)
            continue
        yield Piece(hit.memory, "fact", hit.score)
        yield from (Piece(value, "earlier") for value in hit.history[: -_EARLIER - 1 : -1])


def _close(one: datetime | None, other: datetime | None) -> bool:
    return one is None or other is None or abs(one - other) <= _TOGETHER
