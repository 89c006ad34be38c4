"""Series: samples without text (sensors, counters), a few bytes each, read by time.

The strategy. A fresh sample is one small row, so that one durable append costs what any small
write costs. ``seal_step`` takes 1,024 of them at a time, sorts them by time and writes them as one
compressed segment, or as several where the times have wide gaps (a night, an import of last year
between today's samples). So no segment spans much more time than its samples fill, and a range
has to look only a little before its start. ``series_layout`` has the keys, ``series_codec`` the
grammar of a block, ``series_read`` and ``series_range`` the reading side, which this file passes
on.

Hiding (``hide``, ``show``) touches a bitmap alone. ``erase`` rewrites the segments without the
samples, the others keeping their numbers; what LMDB keeps of deleted bytes goes with the next
generation, as for records.

A sample has no row, no vector and no postings: whoever filters or ranks reads ``Memory`` values.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

import msgspec
import numpy as np
from pyroaring import BitMap64

from memdb.errors import Conflict, StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.series_codec import Block, Sample, encode_block
from memdb.storage.series_layout import (
    BLOCK,
    DUE,
    Series,
    SeriesKey,
    by_series,
    every,
    following,
    format_id,
    matching,
    name_of,
    pack,
    parse_id,
    put_header,
    put_hidden,
    read_header,
    read_hidden,
    sample_key,
    segment_key,
)
from memdb.storage.series_range import Stretch, position_of, read_memories, read_range
from memdb.storage.series_read import (
    Found,
    Position,
    columns,
    count,
    from_memory,
    get_many,
    hidden_of,
    lookup,
    read_fresh,
    read_stored,
    segments_of,
    to_memory,
)

__all__ = [
    "BLOCK",
    "Found",
    "Position",
    "Sample",
    "Series",
    "SeriesKey",
    "Stretch",
    "append",
    "append_missing",
    "check",
    "columns",
    "count",
    "erase",
    "every",
    "format_id",
    "from_memory",
    "get_many",
    "hidden_of",
    "hide",
    "matching",
    "name_of",
    "parse_id",
    "position_of",
    "read_header",
    "read_memories",
    "read_range",
    "seal_step",
    "show",
    "to_memory",
]

_BACKLOG_BLOCKS = 4  # where no maintenance runs, an append seals: reads stay bounded
_MAX_SEGMENTS = 8
_GAP_US = 3_600_000_000
_GAP_MEDIANS = 64
_SPLIT_FROM = 64  # smaller blocks are not worth splitting


def append(txn: WriteTxn, key: SeriesKey, samples: Sequence[Sample]) -> list[str]:
    """Add samples; returns their ids in the order given.

    One sample costs one small row. A batch is numbered by time, and its full blocks are sealed
    at once.
    """
    series = name_of(txn, key)
    header = read_header(txn, series) or Series(key)
    if header.samples and header.key != key:
        raise Conflict("two series have one name", hint="give one of them another stream")
    order = sorted(range(len(samples)), key=lambda i: samples[i].event_us)
    first = header.next_number
    numbers = {place: first + rank for rank, place in enumerate(order)}
    header = msgspec.structs.replace(
        header, key=key, next_number=first + len(samples), samples=header.samples + len(samples)
    )
    fresh = {number: samples[place] for place, number in numbers.items()}
    while len(samples) >= BLOCK and header.next_number - header.sealed >= BLOCK:
        header = _seal(txn, series, header, fresh)
    txn.put_many(
        tables.SAMPLES,
        [(sample_key(series, n), pack(fresh[n])) for n in sorted(fresh) if n >= header.sealed],
    )
    if header.next_number - header.sealed >= _BACKLOG_BLOCKS * BLOCK:
        header = _seal(txn, series, header, {})
    put_header(txn, series, header)
    if header.next_number - header.sealed >= BLOCK:
        txn.put(tables.META, DUE + series, b"")
    return [format_id(series, numbers[place]) for place in range(len(samples))]


def append_missing(txn: WriteTxn, key: SeriesKey, samples: Sequence[Sample]) -> list[str]:
    """Add those samples that the series does not hold already; returns the new ids.

    What makes an import of samples idempotent: their ids belong to the database they came from,
    so that sameness is having the same times and data. Hidden samples count as held.
    """
    series = name_of(txn, key)
    header = read_header(txn, series)
    wanted = {pack(sample): sample for sample in samples}
    if header is not None and samples:
        times = [sample.event_us for sample in samples]
        for sample in read_stored(txn, series, header, min(times), max(times) + 1):
            wanted.pop(pack(sample), None)
    return append(txn, key, list(wanted.values())) if wanted else []


def due(txn: ReadTxn) -> bool:
    """Whether ``seal_step`` has anything to look at."""
    return txn.first_key(tables.META, DUE, following(DUE)) is not None


def seal_step(txn: WriteTxn, budget_ms: float = 5.0) -> bool:
    """Seal blocks that are full, at least one, until the budget is spent; whether any was."""
    stop = time.perf_counter() + budget_ms / 1000
    done = False
    for key in list(islice(txn.scan_keys(tables.META, DUE, following(DUE)), 64)):
        series = key[len(DUE) :]
        header = read_header(txn, series)
        while header is not None and header.next_number - header.sealed >= BLOCK:
            if done and time.perf_counter() > stop:
                return True
            header = _seal(txn, series, header, {})
            put_header(txn, series, header)
            done = True
        txn.delete(tables.META, key)
    return done


def _seal(txn: WriteTxn, series: bytes, header: Series, pending: dict[int, Sample]) -> Series:
    """Make a block of the oldest fresh samples: those stored, and ``pending`` ones."""
    start, stop = header.sealed, header.sealed + BLOCK
    numbered = dict(read_fresh(txn, series, start, stop))
    numbered |= {n: pending[n] for n in range(start, stop) if n in pending}
    txn.delete_range(tables.SAMPLES, sample_key(series, start), sample_key(series, stop))
    rows = sorted((sample.event_us, number) for number, sample in numbered.items())
    widest = header.widest_us
    starts = []
    for part in _split([moment for moment, _ in rows]):
        members = [number for _, number in rows[part]]
        samples = [numbered[number] for number in members]
        _put_segment(txn, series, start // BLOCK, [n - start for n in members], samples)
        starts.append(samples[0].event_us)
        widest = max(widest, samples[-1].event_us - samples[0].event_us)
    txn.put(tables.SAMPLES, sample_key(series, start), pack(starts))
    return msgspec.structs.replace(header, sealed=stop, widest_us=widest)


def _put_segment(
    txn: WriteTxn, series: bytes, block: int, offsets: Sequence[int], samples: Sequence[Sample]
) -> None:
    key = segment_key(series, samples[0].event_us, block)
    txn.put(tables.SERIES, key, encode_block(offsets, samples))


def _split(times: Sequence[int]) -> list[slice]:
    """Where to cut ascending times: at the widest gaps, if they are out of all proportion."""
    if len(times) < _SPLIT_FROM:
        return [slice(0, len(times))] if times else []
    gaps = np.diff(np.array(times, dtype=np.float64))
    wide = np.flatnonzero(gaps > max(_GAP_US, _GAP_MEDIANS * float(np.median(gaps))))
    widest = wide[np.argsort(-gaps[wide], kind="stable")[: _MAX_SEGMENTS - 1]]
    cuts = [0, *(int(place) + 1 for place in np.sort(widest)), len(times)]
    return [slice(a, b) for a, b in pairwise(cuts)]


# --- hiding and erasing -------------------------------------------------------------------


def hide(txn: WriteTxn, ids: Iterable[str]) -> list[str]:
    """Make samples invisible at once; returns the ids of those that were visible."""
    changed = []
    for series, numbers in by_series(ids).items():
        header = read_header(txn, series)
        if header is not None:
            hidden = read_hidden(txn, series)
            wanted = [number for number in numbers if number not in hidden]
            fresh = sorted(row.number for row in lookup(txn, series, header, wanted))
            hidden.update(fresh)
            _set_hidden(txn, series, header, hidden)
            changed += [format_id(series, number) for number in fresh]
    return changed


def show(txn: WriteTxn, ids: Iterable[str]) -> list[str]:
    """Make hidden samples visible again; returns the ids of those that were hidden."""
    changed = []
    for series, numbers in by_series(ids).items():
        header = read_header(txn, series)
        if header is not None:
            hidden = read_hidden(txn, series)
            back = sorted(number for number in numbers if number in hidden)
            for number in back:
                hidden.discard(number)
            _set_hidden(txn, series, header, hidden)
            changed += [format_id(series, number) for number in back]
    return changed


def _set_hidden(txn: WriteTxn, series: bytes, header: Series, hidden: BitMap64) -> None:
    put_hidden(txn, series, hidden)
    put_header(txn, series, msgspec.structs.replace(header, hidden=len(hidden)))


def erase(txn: WriteTxn, ids: Iterable[str]) -> list[str]:
    """Remove samples, hidden or not, rewriting what held them; returns the ids of those removed.

    With its last sample a series loses its names as well.
    """
    removed = []
    for series, numbers in by_series(ids).items():
        header = read_header(txn, series)
        if header is None:
            continue
        gone = sorted(row.number for row in lookup(txn, series, header, numbers))
        for number in gone:
            if number >= header.sealed:
                txn.delete(tables.SAMPLES, sample_key(series, number))
        for block in sorted({number // BLOCK for number in gone if number < header.sealed}):
            _rewrite(txn, series, block, set(gone))
        hidden = read_hidden(txn, series)
        for number in gone:
            hidden.discard(number)
        _set_hidden(
            txn,
            series,
            msgspec.structs.replace(header, samples=header.samples - len(gone)),
            hidden,
        )
        removed += [format_id(series, number) for number in gone]
    return removed


def _rewrite(txn: WriteTxn, series: bytes, block: int, gone: set[int]) -> None:
    """Write a block's segments anew without some numbers."""
    starts = []
    base = block * BLOCK
    for key, segment in segments_of(txn, series, block):
        rows = list(zip(segment.offsets.tolist(), segment.samples(), strict=True))
        kept = [row for row in rows if base + row[0] not in gone]
        if len(kept) < len(rows):
            txn.delete(tables.SERIES, key)
            if kept:
                _put_segment(
                    txn, series, block, [o for o, _ in kept], [sample for _, sample in kept]
                )
        if kept:
            starts.append(kept[0][1].event_us)
    txn.put(tables.SAMPLES, sample_key(series, base), pack(starts))


# --- checking -----------------------------------------------------------------------------


def check(txn: ReadTxn) -> list[StoreCorrupt]:
    """Reads every block and compares it with the registry; what does not agree."""
    problems = []
    segments = 0
    for series, header in every(txn):
        try:
            total = len(read_fresh(txn, series, header.sealed, header.next_number))
            for block in range(header.sealed // BLOCK):
                for _, segment in segments_of(txn, series, block):
                    _check_segment(segment, header)
                    total += segment.count
                    segments += 1
            if total != header.samples:
                raise StoreCorrupt("a series has another number of samples than it says", path="kv")
        except StoreCorrupt as error:
            problems.append(error)
    if not problems and segments != txn.count(tables.SERIES):
        problems.append(StoreCorrupt("there are segments that no series lists", path="kv"))
    return problems


def _check_segment(segment: Block, header: Series) -> None:
    samples = segment.samples()
    times = [sample.event_us for sample in samples]
    span = (segment.lo, segment.hi) == (times[0], times[-1])
    inside = bool(((segment.offsets >= 0) & (segment.offsets < BLOCK)).all())
    wide = segment.hi - segment.lo <= header.widest_us
    if not (span and inside and wide and times == sorted(times)):
        raise StoreCorrupt("a segment of a series contradicts its head", path="kv")
