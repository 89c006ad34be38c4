"""The time that a question means, in one store: its words read, the event it names looked up.

A memory is *at* the time of its event; a fact without one is at the time from which it is true;
anything else but a part of a document is at the time it was recorded. This file knows rows, and
the texts it is lent; what is done with a moment is for others to decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from pyroaring import BitMap

from memdb.query.date_terms import MONTH_NAMES
from memdb.query.lexical import LexicalQuery
from memdb.query.time_expressions import TimeReading
from memdb.storage.environment import ReadTxn
from memdb.storage.filters import FilterIndex
from memdb.times import load_zone, parse_time
from memdb.types import Memory, from_micros, to_micros

_DATED: Final = re.compile(r"\d|" + "|".join(sorted(name for name in MONTH_NAMES)))
_KNOWN_SHARE: Final = 0.6  # of an event's words by what they tell, for a memory to be that event
_LOOKED_AT: Final = 5


class Anchor(NamedTuple):
    """An event that a question names, and the row of the memory that it is."""

    row: int
    words: str
    start_us: int
    end_us: int


class Moment(NamedTuple):
    """What a question says of time; ``start_us <= t < end_us``, None where open."""

    reading: TimeReading
    start_us: int | None
    end_us: int | None
    anchor: Anchor | None

    @property
    def bounded(self) -> bool:
        return self.start_us is not None or self.end_us is not None

    @property
    def asked(self) -> str | None:
        """What is left to look up in words once the time is known; None: the whole question.

        An event that was found, "yesterday" and "last" are no words of the answer. Dates may be:
        memories say them, and are indexed with theirs.
        """
        dated = self.reading.event is None and _DATED.search(self.reading.words.casefold())
        unknown = self.reading.event is not None and self.anchor is None
        return None if dated or unknown else self.reading.rest

    def to_dict(self) -> dict[str, Any]:
        """For ``plan``: times as instants."""
        told: dict[str, Any] = {"words": self.reading.words}
        for name, micros in (("start", self.start_us), ("end", self.end_us)):
            if micros is not None:
                told[name] = from_micros(micros)
        if self.reading.order is not None:
            told["order"] = self.reading.order
        if self.anchor is not None:
            told["event"] = self.anchor.words
        return told


def moment_of(
    reading: TimeReading,
    *,
    txn: ReadTxn,
    filters: FilterIndex,
    allowed: BitMap,
    look_up: Callable[[str], LexicalQuery],
    memories: Callable[[Sequence[int]], dict[int, Memory]],
    strict: bool,
) -> Moment | None:
    """None where the question names a time of which nothing is known, or an event that the store
    does not know, and nothing else. ``strict``: a time counts though nothing lies in it."""
    if reading.event is None:
        span = reading.start_us, reading.end_us
        if span == (None, None) or strict or rows_at(txn, filters, allowed, *span):
            return Moment(reading, *span, None)
        return None if reading.order is None else Moment(reading, None, None, None)
    timed = allowed & filters.present(txn, "event_time")
    anchor = _event(look_up(reading.event), timed, memories)
    if anchor is None:
        return None if reading.order is None else Moment(reading, None, None, None)
    start, end = {
        "before": (None, anchor.start_us),
        "after": (anchor.end_us, None),
        "during": (anchor.start_us, anchor.end_us),
    }[reading.relation or "during"]
    return Moment(reading, start, end, anchor)


def _event(
    words: LexicalQuery, timed: BitMap, memories: Callable[[Sequence[int]], dict[int, Memory]]
) -> Anchor | None:
    """The memory of an event that holds most of its words."""
    rows, scores = words.search(timed, _LOOKED_AT)
    if not len(rows) or not words.total_mass:
        return None
    known = memories(sorted(rows.tolist()))
    # What was said of an event, in chat or notes, does not date it.
    places = [place for place, row in enumerate(rows.tolist()) if _is_event(known[row])]
    rows, scores = rows[places], scores[places]
    if not places:
        return None
    held = words.coverage(rows)
    ranked = sorted(
        (-round(float(held[place]), 2), -float(scores[place]), row)
        for place, row in enumerate(rows.tolist())
    )
    share, _, row = ranked[0]
    if -share < _KNOWN_SHARE:
        return None
    memory = known[row]
    if memory.event_time is None:
        return None
    span = _span(memory)
    return Anchor(row, memory.text or "", *span)


def _is_event(memory: Memory) -> bool:
    return memory.kind == "event" or memory.event_end is not None


def _span(memory: Memory) -> tuple[int, int]:
    """From its beginning to its end, or to that of the day or minute that it names."""
    assert memory.event_time is not None
    start = to_micros(memory.event_time)
    if memory.event_end is not None:
        return start, to_micros(memory.event_end) + 1
    shape = {"year": 4, "month": 7, "day": 10}.get(memory.precision)
    if shape is None or memory.time_zone is None:
        return start, start + 1
    zone = load_zone(memory.time_zone)
    local = memory.event_time.astimezone(zone).date().isoformat()[:shape]
    return start, parse_time(local, zone=zone, field="event_time").end_us


def rows_at(
    txn: ReadTxn,
    filters: FilterIndex,
    rows: BitMap,
    start_us: int | None,
    end_us: int | None,
    *,
    lasting: bool = False,
) -> BitMap:
    """Those of ``rows`` that are at a time in ``start_us <= t < end_us``.

    ``lasting``: facts that were true at some time in it count, not only those that began in it.
    """
    found = filters.range(txn, "event_time", start_us, end_us)
    if start_us is not None:  # what began before may last into it
        going_on = filters.range(txn, "event_end", start_us, None)
        found |= going_on & filters.range(txn, "event_time", None, start_us)
    found &= rows
    rest = rows - filters.present(txn, "event_time")
    if not rest:
        return found
    if lasting:
        true = rest & filters.present(txn, "key")
        if end_us is not None:
            true -= filters.range(txn, "valid_from", end_us, None)
        if start_us is not None:
            true -= filters.range(txn, "valid_to", None, start_us, include_high=True)
    else:
        true = rest & filters.range(txn, "valid_from", start_us, end_us)
    rest = rest - filters.present(txn, "valid_from") - filters.equals(txn, "kind", "chunk")
    return found | true | (filters.range(txn, "recorded_at", start_us, end_us) & rest)


def nearest_to(
    txn: ReadTxn,
    filters: FilterIndex,
    rows: BitMap,
    start_us: int | None,
    end_us: int | None,
    limit: int,
    *,
    visible: BitMap | None = None,
) -> list[int]:
    """Up to ``limit`` of ``rows`` with an event in the span: the first from an open end's bound
    on, or the last before it. What is not ``visible`` is passed over without being counted."""
    entries = filters.times_in_order(
        txn, "event_time", start_us, end_us, reverse=start_us is None or end_us is not None
    )
    looked_at = (row for _, row in entries if visible is None or row in visible)
    return [row for row in islice(looked_at, 8 * limit) if row in rows][:limit]
