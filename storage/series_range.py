"""Samples in order of time: of one series or of several, one by one or as memories by the hundred.

Segments of a series may overlap, and fresh samples belong among them, so what is read is held back
until no later segment can precede it. It is held as columns: a block gives its times and numbers,
and the rest of its columns are decoded for those rows alone that somebody takes. A range of
memories costs about a microsecond a sample that way.

This file knows runs of samples; how a block is written is in ``series_codec``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from memdb.errors import InvalidArgument
from memdb.storage.environment import ReadTxn
from memdb.storage.series_codec import Block, Columns, Sample, columns_of
from memdb.storage.series_layout import (
    MAX_US,
    MIN_US,
    Series,
    SeriesKey,
    format_ids,
    parse_id,
    read_header,
    read_hidden,
)
from memdb.storage.series_read import Found, Position, fresh_between, segments
from memdb.types import Memory, from_micros, to_micros

Ints = NDArray[np.int64]
_EPOCH = from_micros(0)


class Stretch(NamedTuple):
    """Memories in order of time, and their times (n,) int64 in microseconds."""

    times: Ints
    memories: list[Memory]


class _Run(NamedTuple):
    """Samples of one series, ascending by time and number, and where the rest of each is.

    times, numbers, source, place (n,): sample i is ``place[i]`` of ``sources[source[i]]``.
    """

    times: Ints
    numbers: Ints
    source: Ints
    place: Ints
    sources: list[Block | list[Sample]]

    def part(self, which: slice | NDArray[np.bool_] | Ints) -> _Run:
        times, numbers, source, place, sources = self
        return _Run(times[which], numbers[which], source[which], place[which], sources)

    def samples(self) -> list[Sample]:
        """What the run is of."""
        found: list[Sample] = []
        read: dict[int, list[Sample]] = {}
        for source, place in zip(self.source.tolist(), self.place.tolist(), strict=True):
            if source not in read:
                origin = self.sources[source]
                read[source] = origin.samples() if isinstance(origin, Block) else origin
            found.append(read[source][place])
        return found


_NO_INTS: Ints = np.zeros(0, np.int64)
_NONE = _Run(_NO_INTS, _NO_INTS, _NO_INTS, _NO_INTS, [])


def position_of(memory: Memory) -> Position:
    """Where the memory of a sample stands. Raises ``InvalidArgument`` for any other."""
    parsed = parse_id(memory.id)
    if parsed is None or memory.event_time is None:
        raise InvalidArgument("that is not a sample", field="id")
    return Position(to_micros(memory.event_time), *parsed)


def read_range(
    txn: ReadTxn,
    series: Iterable[bytes],
    lo_us: int | None = None,
    hi_us: int | None = None,
    *,
    reverse: bool = False,
    limit: int | None = None,
    after: Position | None = None,
) -> Iterator[Found]:
    """Visible samples of one or more series with lo_us <= event_us < hi_us, by time.

    ``after``: those that come later in this order than a position read before, in another
    transaction even. Blocks outside the range are not decompressed. Valid while ``txn`` is.
    """
    streams = [
        _found(name, _runs(txn, name, header, span, after, reverse), reverse)
        for name, header, span in _of_series(txn, series, lo_us, hi_us, after, reverse)
    ]
    merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, reverse=reverse)
    return islice(merged, limit)


def read_memories(
    txn: ReadTxn,
    series: Iterable[bytes],
    lo_us: int | None = None,
    hi_us: int | None = None,
    *,
    reverse: bool = False,
    limit: int,
    after: Position | None = None,
) -> Stretch:
    """The memories of the first ``limit`` of ``read_range``; fewer only if there are no more."""
    legs: list[tuple[bytes, SeriesKey, _Run]] = []
    for name, header, span in _of_series(txn, series, lo_us, hi_us, after, reverse):
        legs.append((name, header.key, _first(txn, name, header, span, after, reverse, limit)))
    if len(legs) == 1:
        name, key, run = legs[0]
        return Stretch(run.times, _memories(name, key, run))
    return _merged(legs, reverse, limit)


def _merged(legs: list[tuple[bytes, SeriesKey, _Run]], reverse: bool, limit: int) -> Stretch:
    """The first of several series, of each of which the first are given."""
    legs.sort(key=lambda leg: leg[0], reverse=reverse)
    times = np.concatenate([_NO_INTS, *(run.times for _, _, run in legs)])
    counts = [len(run.times) for _, _, run in legs]
    leg_of = np.repeat(np.arange(len(legs)), counts)
    within = np.concatenate([_NO_INTS, *map(np.arange, counts)])
    order = np.lexsort((within, leg_of, -times if reverse else times))[:limit]
    found: list[Memory | None] = [None] * len(order)
    for number, (name, key, run) in enumerate(legs):
        at = np.flatnonzero(leg_of[order] == number)  # a leg's own order is the common one
        made = _memories(name, key, run.part(slice(0, len(at))))
        for place, memory in zip(at.tolist(), made, strict=True):
            found[place] = memory
    return Stretch(times[order], [memory for memory in found if memory is not None])


# --- one series ---------------------------------------------------------------------------

Span = tuple[int, int]


def _of_series(
    txn: ReadTxn,
    series: Iterable[bytes],
    lo_us: int | None,
    hi_us: int | None,
    after: Position | None,
    reverse: bool,
) -> Iterator[tuple[bytes, Series, Span]]:
    """The series that exist, and the times lo <= t < hi that are still to be read."""
    lo = MIN_US if lo_us is None else lo_us
    hi = MAX_US if hi_us is None else hi_us
    if after is not None and reverse:
        hi = min(hi, after.event_us + 1)
    elif after is not None:
        lo = max(lo, after.event_us)
    for name in series if lo < hi else ():
        header = read_header(txn, name)
        if header is not None:
            yield name, header, (lo, hi)


def _first(
    txn: ReadTxn,
    name: bytes,
    header: Series,
    span: Span,
    after: Position | None,
    reverse: bool,
    limit: int,
) -> _Run:
    """The first ``limit`` samples of a series, in the order that is asked for."""
    found, count = [], 0
    for run in _runs(txn, name, header, span, after, reverse):
        if count < limit:
            found.append(run.part(slice(None, None, -1)) if reverse else run)
            count += len(run.times)
        if count >= limit:
            break
    return _joined(found).part(slice(0, limit))


def _found(name: bytes, runs: Iterable[_Run], reverse: bool) -> Iterator[Found]:
    for run in runs:
        ordered = run.part(slice(None, None, -1)) if reverse else run
        times, numbers = ordered.times.tolist(), ordered.numbers.tolist()
        yield from map(Found, times, repeat(name), numbers, ordered.samples())


def _runs(
    txn: ReadTxn,
    name: bytes,
    header: Series,
    span: Span,
    after: Position | None,
    reverse: bool,
) -> Iterator[_Run]:
    """The visible samples of a series past ``after``, run by run; each run is ascending."""
    hidden = read_hidden(txn, name) if header.hidden else BitMap64()
    for run in _settled(txn, name, header, *span, reverse):
        if hidden:
            run = run.part(np.array([n not in hidden for n in run.numbers.tolist()], np.bool_))
        if after is not None:
            run = run.part(_past(name, run, after, reverse))
        if len(run.times):
            yield run


def _past(name: bytes, run: _Run, after: Position, reverse: bool) -> NDArray[np.bool_]:
    """Which samples of a run come later in the order of reading than a position."""
    side = np.less if reverse else np.greater
    later: NDArray[np.bool_] = side(run.times, after.event_us)
    if name == after.series:
        later |= (run.times == after.event_us) & side(run.numbers, after.number)
    elif (name < after.series) == reverse:
        later |= run.times == after.event_us
    return later


def _settled(
    txn: ReadTxn, name: bytes, header: Series, lo: int, hi: int, reverse: bool
) -> Iterator[_Run]:
    """A sample is held back until no later segment can precede it."""
    held = _fresh(txn, name, header, lo, hi)
    for base, block in segments(txn, name, header, lo, hi, reverse=reverse):
        # What is still to come begins at block.lo or later; read backwards, ends at most here.
        bound = block.lo + header.widest_us if reverse else block.lo
        if len(held.times) and reverse:
            cut = int(np.searchsorted(held.times, bound, side="right"))
            yield held.part(slice(cut, None))
            held = held.part(slice(0, cut))
        elif len(held.times):
            cut = int(np.searchsorted(held.times, bound))
            yield held.part(slice(0, cut))
            held = held.part(slice(cut, None))
        held = _together(_of_block(base, block, lo, hi), held)
    yield held


def _fresh(txn: ReadTxn, name: bytes, header: Series, lo: int, hi: int) -> _Run:
    rows = fresh_between(txn, name, header, lo, hi)
    if not rows:
        return _NONE
    samples = [sample for _, sample in rows]
    times = np.array([sample.event_us for sample in samples], np.int64)
    run = _of_source(times, np.array([number for number, _ in rows], np.int64), samples)
    return run.part(np.argsort(times, kind="stable"))  # their numbers ascend


def _of_block(base: int, block: Block, lo: int, hi: int) -> _Run:
    start, stop = np.searchsorted(block.times, (lo, hi)).tolist()
    return _of_source(block.times, block.offsets + base, block).part(slice(start, stop))


def _of_source(times: Ints, numbers: Ints, source: Block | list[Sample]) -> _Run:
    count = len(times)
    return _Run(times, numbers, np.zeros(count, np.int64), np.arange(count), [source])


def _together(one: _Run, other: _Run) -> _Run:
    """Two runs of a series as one."""
    if not len(other.times):
        return one
    if not len(one.times):
        return other
    both = _joined([one, other])
    if one.times[-1] < other.times[0]:
        return both
    return both.part(np.lexsort((both.numbers, both.times)))


def _joined(runs: list[_Run]) -> _Run:
    """Runs one after the other."""
    if len(runs) == 1:
        return runs[0]
    sources: list[Block | list[Sample]] = []
    places = []
    for run in runs:
        places.append(run.source + len(sources))
        sources += run.sources
    return _Run(
        np.concatenate([_NO_INTS, *(run.times for run in runs)]),
        np.concatenate([_NO_INTS, *(run.numbers for run in runs)]),
        np.concatenate([_NO_INTS, *places]),
        np.concatenate([_NO_INTS, *(run.place for run in runs)]),
        sources,
    )


# --- memories -----------------------------------------------------------------------------


def _memories(name: bytes, key: SeriesKey, run: _Run) -> list[Memory]:
    """The memories of a run in its order: the columns of each source are read once."""
    if not len(run.times):
        return []
    found: list[Memory | None] = [None] * len(run.times)
    for number in np.unique(run.source).tolist():
        at = np.flatnonzero(run.source == number)
        places = run.place[at]
        first, stop = int(places.min()), int(places.max()) + 1
        source = run.sources[number]
        if isinstance(source, Block):
            columns = source.columns(slice(first, stop))
        else:
            columns = columns_of(source[first:stop])
        if len(at) == stop - first and bool((places[1:] > places[:-1]).all()):
            made = _make(name, key, run.times[at], run.numbers[at], columns)
        else:
            made = _make(name, key, run.times[at], run.numbers[at], columns.at(places - first))
        if len(at) == len(found):
            return made
        for place, memory in zip(at.tolist(), made, strict=True):
            found[place] = memory
    return [memory for memory in found if memory is not None]


def _make(
    name: bytes, key: SeriesKey, times: Ints, numbers: Ints, columns: Columns
) -> list[Memory]:
    namespace, kind, stream, source = key
    moments = _moments(times)
    recorded = columns.recorded
    if np.array_equal(recorded, times):  # usual, and saves as many datetimes
        learned = moments
    elif bool((recorded == recorded[0]).all()):
        learned = _moments(recorded[:1]) * len(times)
    else:
        learned = _moments(recorded)
    ids = format_ids(name, numbers.tolist())
    if columns.plain:  # in four fifths of the time of the general case
        return [
            Memory(
                id=id,
                kind=kind,
                namespace=namespace,
                stream=stream,
                source=source,
                event_time=moment,
                recorded_at=known,
                data=data,
            )
            for id, moment, known, data in zip(ids, moments, learned, columns.data, strict=True)
        ]
    ends = iter(_moments(np.array([e for e in columns.ends if e is not None], np.int64)))
    rest = zip(columns.data, columns.ends, columns.zones, columns.precisions, strict=True)
    return [
        Memory(
            id=id,
            kind=kind,
            namespace=namespace,
            stream=stream,
            source=source,
            event_time=moment,
            event_end=None if end is None else next(ends),
            recorded_at=known,
            time_zone=zone,
            precision=precision,
            data=data,
        )
        for id, moment, known, (data, end, zone, precision) in zip(
            ids, moments, learned, rest, strict=True
        )
    ]


def _moments(micros: Ints) -> list[datetime]:
    """``from_micros`` of each, many times as fast."""
    return list(map(_EPOCH.__add__, micros.astype("m8[us]").tolist()))
