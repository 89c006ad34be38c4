"""Reading series: by id, as columns, and counting; ``series_range`` reads them in order of time.

A range looks at the segments whose first time lies in it, and before it as far as the widest
segment of the series reaches; of those, only the heads are read of the ones that end too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.series_codec import Block, Path, Sample, Values, encode_block
from memdb.storage.series_layout import (
    BLOCK,
    MAX_US,
    MIN_US,
    Series,
    SeriesKey,
    by_series,
    format_id,
    read_header,
    read_hidden,
    read_starts,
    sample_key,
    segment_key,
)
from memdb.types import Memory, from_micros, to_micros

_SAMPLE = msgspec.msgpack.Decoder(Sample)
_SAMPLES = msgspec.msgpack.Decoder(list[Sample])
_ARRAY_32 = b"\xdd"
_SPANS = "series-fresh-spans"  # in ``scratch``, by series
_MOST_SPANS = 1_024
Counters = tuple[int, int, int]


class Position(NamedTuple):
    """Where a sample stands in the order of reading; what a later read resumes after."""

    event_us: int
    series: bytes
    number: int


class Found(NamedTuple):
    """A sample as read; compares by its position."""

    event_us: int
    series: bytes
    number: int
    sample: Sample

    @property
    def position(self) -> Position:
        return Position(*self[:3])

    @property
    def id(self) -> str:
        return format_id(self.series, self.number)


def to_memory(key: SeriesKey, found: Found) -> Memory:
    """The memory that a sample is."""
    sample = found.sample
    return Memory(
        id=found.id,
        kind=key.kind,
        namespace=key.namespace,
        stream=key.stream,
        source=key.source,
        event_time=from_micros(sample.event_us),
        event_end=None if sample.end_us is None else from_micros(sample.end_us),
        recorded_at=from_micros(sample.recorded_us),
        time_zone=sample.zone,
        precision=sample.precision,
        data=sample.data,
    )


def from_memory(memory: Memory) -> tuple[SeriesKey, Sample]:
    """The inverse of ``to_memory``, but for the id: what an import appends.

    Raises ``InvalidArgument`` without event_time or recorded_at.
    """
    if memory.event_time is None or memory.recorded_at is None:
        raise InvalidArgument("a sample needs event_time and recorded_at", field="event_time")
    key = SeriesKey(memory.namespace, memory.kind, memory.stream, memory.source)
    return key, Sample(
        to_micros(memory.event_time),
        to_micros(memory.recorded_at),
        memory.data,
        None if memory.event_end is None else to_micros(memory.event_end),
        memory.time_zone,
        memory.precision,
    )


def read_fresh(txn: ReadTxn, series: bytes, start: int, stop: int) -> list[tuple[int, Sample]]:
    """(number, sample) of fresh samples with start <= number < stop."""
    first, last = sample_key(series, start), sample_key(series, stop)
    keys, joined, _ = txn.joined_between(tables.SAMPLES, first, last)
    numbers = np.frombuffer(keys, ">u8")[1::2].tolist()
    packed = _ARRAY_32 + len(numbers).to_bytes(4, "big") + joined
    try:
        return list(zip(numbers, _SAMPLES.decode(packed), strict=True))
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a sample does not decode", path="kv") from error


def fresh_between(
    txn: ReadTxn, series: bytes, header: Series, lo_us: int, hi_us: int
) -> list[tuple[int, Sample]]:
    """(number, sample) of a series' fresh samples with lo_us <= time < hi_us.

    They are most often later than the range. Which times they span is remembered beside the
    counters, which change whenever what is fresh does.
    """
    spans: dict[bytes, tuple[Counters, int, int]] = txn.scratch.setdefault(_SPANS, {})
    counters = (header.sealed, header.next_number, header.samples)
    known = spans.get(series)
    if known is not None and known[0] == counters and not (known[1] < hi_us and lo_us <= known[2]):
        return []
    fresh = read_fresh(txn, series, header.sealed, header.next_number)
    if known is None or known[0] != counters:
        times = [sample.event_us for _, sample in fresh]
        if len(spans) >= _MOST_SPANS:
            spans.clear()
        spans[series] = (counters, min(times, default=MAX_US), max(times, default=MIN_US))
    return [(number, sample) for number, sample in fresh if lo_us <= sample.event_us < hi_us]


def _decode_sample(payload: bytes) -> Sample:
    try:
        return _SAMPLE.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a sample does not decode", path="kv") from error


def segments(
    txn: ReadTxn, series: bytes, header: Series, lo_us: int, hi_us: int, *, reverse: bool = False
) -> Iterator[tuple[int, Block]]:
    """(first number, block) of segments that may hold lo_us <= time < hi_us, by their first time.

    Only the head of a block is read here.
    """
    first = segment_key(series, max(lo_us - header.widest_us, MIN_US), 0)
    last = segment_key(series, hi_us, 0)
    for key, payload in txn.scan(tables.SERIES, first, last, reverse=reverse):
        block = Block(payload)
        if block.hi >= lo_us:
            yield int.from_bytes(key[16:], "big") * BLOCK, block


def read_stored(txn: ReadTxn, series: bytes, header: Series, lo: int, hi: int) -> Iterator[Sample]:
    """Every sample with lo <= event_us < hi, hidden or not, in no order."""
    for _, sample in fresh_between(txn, series, header, lo, hi):
        yield sample
    for _, block in segments(txn, series, header, lo, hi):
        start, stop = np.searchsorted(block.times, (lo, hi)).tolist()
        yield from block.samples(start, stop)


def get_many(txn: ReadTxn, ids: Iterable[str]) -> dict[str, Memory]:
    """The visible samples among ``ids``, by id."""
    found = {}
    for series, numbers in by_series(ids).items():
        header = read_header(txn, series)
        if header is None:
            continue
        wanted = numbers - set(read_hidden(txn, series)) if header.hidden else numbers
        for row in lookup(txn, series, header, wanted):
            found[row.id] = to_memory(header.key, row)
    return found


def hidden_of(txn: ReadTxn, ids: Iterable[str]) -> dict[str, Memory]:
    """The hidden samples among ``ids``, by id."""
    found = {}
    for series, numbers in by_series(ids).items():
        header = read_header(txn, series)
        if header is not None and header.hidden:
            hidden = read_hidden(txn, series)
            wanted = sorted(number for number in numbers if number in hidden)
            for row in sorted(lookup(txn, series, header, wanted)):
                found[row.id] = to_memory(header.key, row)
    return found


def lookup(txn: ReadTxn, series: bytes, header: Series, numbers: Iterable[int]) -> Iterator[Found]:
    """Those of ``numbers`` that are stored, hidden or not."""
    blocks: dict[int, set[int]] = {}
    for number in numbers:
        if number < header.sealed:
            blocks.setdefault(number // BLOCK, set()).add(number)
            continue
        payload = txn.get(tables.SAMPLES, sample_key(series, number))
        if payload is not None:
            sample = _decode_sample(payload)
            yield Found(sample.event_us, series, number, sample)
    for block, members in blocks.items():
        for _, segment in segments_of(txn, series, block):
            numbers = (segment.offsets + block * BLOCK).tolist()
            for number, sample in zip(numbers, segment.samples(), strict=True):
                if number in members:
                    yield Found(sample.event_us, series, number, sample)


def segments_of(txn: ReadTxn, series: bytes, block: int) -> list[tuple[bytes, Block]]:
    """(key, content) of each segment of a sealed block."""
    found = []
    for start in read_starts(txn, series, block):
        key = segment_key(series, start, block)
        content = txn.get(tables.SERIES, key)
        if content is None:
            raise StoreCorrupt("a segment of a series is missing", path="kv")
        found.append((key, Block(content)))
    return found


def count(txn: ReadTxn, series: bytes, lo_us: int | None = None, hi_us: int | None = None) -> int:
    """Visible samples with lo_us <= event_us < hi_us; a block inside is counted unopened."""
    header = read_header(txn, series)
    if header is None:
        return 0
    if lo_us is None and hi_us is None:
        return header.samples - header.hidden
    hidden = read_hidden(txn, series) if header.hidden else BitMap64()
    lo = MIN_US if lo_us is None else lo_us
    hi = MAX_US if hi_us is None else hi_us
    fresh = fresh_between(txn, series, header, lo, hi)
    total = sum(number not in hidden for number, _ in fresh)
    for base, block in segments(txn, series, header, lo, hi):
        if lo <= block.lo and block.hi < hi and not hidden:
            total += block.count
            continue
        start, stop = np.searchsorted(block.times, (lo, hi)).tolist()
        numbers = (block.offsets[start:stop] + base).tolist() if hidden else ()
        total += stop - start - sum(number in hidden for number in numbers)
    return total


def columns(
    txn: ReadTxn, series: bytes, lo_us: int | None = None, hi_us: int | None = None
) -> dict[str, NDArray[Any]]:
    """The visible samples of a series with lo_us <= event_us < hi_us as arrays, by time.

    ``event_time`` and ``recorded_at`` (n,) int64 microseconds UTC, ``number`` (n,) int64, and an
    array for each leaf of the data: ``data`` where that is a scalar, ``data.hr.bpm``,
    ``data.xyz[0]`` (``.``, ``[`` and a backslash in a key are escaped by a backslash). int64,
    bool or float64 where all samples have such a value; float64 with NaN for absent and null ones
    beside numbers; otherwise object with None.
    """
    header = read_header(txn, series)
    lo = MIN_US if lo_us is None else lo_us
    hi = MAX_US if hi_us is None else hi_us
    found = _Columns(lo, hi, BitMap64())
    if header is not None:
        if header.hidden:
            found.hidden = read_hidden(txn, series)
        fresh = sorted(
            fresh_between(txn, series, header, lo, hi),
            key=lambda row: row[1].event_us,
        )
        if fresh:
            offsets = [number - header.sealed for number, _ in fresh]
            block = Block(encode_block(offsets, [sample for _, sample in fresh]))
            found.add(header.sealed, block)
        for base, block in segments(txn, series, header, lo, hi):
            found.add(base, block)
    return found.arrays()


class _Columns:
    """Collects blocks; ``arrays`` joins them."""

    def __init__(self, lo: int, hi: int, hidden: BitMap64) -> None:
        self.hidden = hidden
        self._lo, self._hi = lo, hi
        self._size = 0
        self._fixed: dict[str, list[NDArray[np.int64]]] = {
            "event_time": [],
            "recorded_at": [],
            "number": [],
        }
        self._leaves: dict[Path, list[tuple[NDArray[np.int64], Values]]] = {}

    def add(self, base: int, block: Block) -> None:
        numbers = block.offsets + base
        keep = (block.times >= self._lo) & (block.times < self._hi)
        if self.hidden:
            keep &= [number not in self.hidden for number in numbers.tolist()]
        if not keep.any():
            return
        places = np.cumsum(keep) - 1 + self._size
        for path, at, values in block.fields():
            chosen = keep[at]
            kept: Values = (
                list(compress(values, chosen)) if isinstance(values, list) else values[chosen]
            )
            self._leaves.setdefault(path, []).append((places[at[chosen]], kept))
        for name, column in zip(self._fixed, (block.times, block.recorded, numbers), strict=True):
            self._fixed[name].append(column[keep])
        self._size += int(np.count_nonzero(keep))

    def arrays(self) -> dict[str, NDArray[Any]]:
        none = np.zeros(0, dtype=np.int64)
        fixed = {name: np.concatenate([none, *parts]) for name, parts in self._fixed.items()}
        order = np.lexsort((fixed["number"], fixed["event_time"]))
        found: dict[str, NDArray[Any]] = {name: values[order] for name, values in fixed.items()}
        for path, parts in self._leaves.items():
            if any(len(at) for at, _ in parts):
                found[_column_name(path)] = self._join(parts)[order]
        return found

    def _join(self, parts: list[tuple[NDArray[np.int64], Values]]) -> NDArray[Any]:
        kinds: set[type] = set()
        for _, values in parts:
            if isinstance(values, list):
                kinds |= set(map(type, values))
            elif len(values):
                kinds.add(int if values.dtype == np.int64 else float)
        complete = sum(len(at) for at, _ in parts) == self._size
        joined: NDArray[Any]
        if complete and len(kinds) == 1 and kinds <= {int, bool}:
            joined = np.zeros(self._size, dtype=np.int64 if int in kinds else np.bool_)
        elif kinds <= {int, float, type(None)}:
            joined = np.full(self._size, np.nan)
        else:
            joined = np.full(self._size, None, dtype=object)
        for at, values in parts:
            if joined.dtype == object:
                for place, value in zip(at.tolist(), _plain(values), strict=True):
                    joined[place] = value
            else:
                joined[at] = np.array(values, dtype=joined.dtype)
        return joined


def _plain(values: Values) -> list[Any]:
    return values if isinstance(values, list) else list(values.tolist())


def _column_name(path: Path) -> str:
    name = "data"
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            name += "." + step.replace("\\", "\\\\").replace(".", "\\.").replace("[", "\\[")
    return name
