"""``db.history``: what happened when, in streams.

Events with text are records like any other, found by ``recall`` and filters. Events with data and
no text (a sensor's samples) go into compressed columnar blocks, a few bytes each; a range reads
both, in order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import tzinfo
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import validate
from memdb.errors import MissingDependency
from memdb.query import filters
from memdb.space_views import rows_bitmap
from memdb.storage import series
from memdb.storage.series import SeriesKey
from memdb.storage.series_codec import Sample
from memdb.storage.store import Reader, Writer
from memdb.times import parse_time
from memdb.types import Memory, Written, to_micros
from memdb.validate import TimeLike

if TYPE_CHECKING:
    import pyarrow

    from memdb.database import Database

_CHUNK = 1_024

_SAMPLE_BYTES = 128


class History:
    """Timestamped memories: append them, and read them back by time."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def append(
        self,
        /,
        kind: str,
        text: str | None = None,
        *,
        data: Any = None,
        event_time: TimeLike | None = None,
        stream: str | None = None,
        source: str | None = None,
        namespace: str | None = None,
        **fields: Any,
    ) -> Written:
        """Record that something happened, now unless ``event_time`` says otherwise.

        Further ``fields`` are those of ``remember``. A call with ``data`` and neither text nor
        further fields is a sample of a series. Raises ``InvalidArgument``.
        """
        when = self._db._engine.now() if event_time is None else event_time
        if text is None and data is not None and not fields:
            return self._append_sample(kind, data, when, stream, source, namespace)
        return self._db.remember(
            text,
            data=data,
            kind=kind,
            event_time=when,
            stream=stream,
            source=source,
            namespace=namespace,
            **fields,
        )

    def append_many(
        self,
        kind: str,
        samples: Iterable[tuple[TimeLike, Any]],
        *,
        stream: str | None = None,
        source: str | None = None,
        namespace: str | None = None,
        batch: int = 8192,
    ) -> int:
        """Append many samples of one series, as (event_time, data); returns how many.

        Each batch is one durable transaction.
        """
        key = self._series(kind, stream, source, namespace)
        engine = self._db._engine
        zone, now = engine.zone, to_micros(engine.now())
        total = 0
        iterator = iter(samples)
        while chunk := [_sample(when, data, zone, now) for when, data in islice(iterator, batch)]:
            self._db._require_samples(key, chunk)
            engine.admission.admit(0, _SAMPLE_BYTES * len(chunk))
            engine.store.write(_appending(key, chunk))
            total += len(chunk)
        self._db._maintenance.notify()
        return total

    def _append_sample(
        self,
        kind: str,
        data: Any,
        when: TimeLike,
        stream: str | None,
        source: str | None,
        namespace: str | None,
    ) -> Written:
        key = self._series(kind, stream, source, namespace)
        engine = self._db._engine
        sample = _sample(when, data, engine.zone, to_micros(engine.now()))
        self._db._require_samples(key, [sample])
        engine.admission.admit(0, _SAMPLE_BYTES)
        (id,) = engine.store.write(_appending(key, [sample]))
        self._db._maintenance.notify()
        series_id = series.parse_id(id)
        assert series_id is not None, "the store gives ids it can read"
        found = series.Found(sample.event_us, *series_id, sample)
        return Written(id, "inserted", series.to_memory(key, found))

    def _series(
        self, kind: str, stream: str | None, source: str | None, namespace: str | None
    ) -> SeriesKey:
        return SeriesKey(
            self._db._write_namespace(namespace),
            validate.string(kind, "kind"),
            validate.optional_string(stream, "stream"),
            validate.string(self._db._write_source(source), "source"),
        )

    def range(
        self,
        kind: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        stream: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        namespace: str | None = None,
    ) -> Iterator[Memory]:
        """Memories with start <= event_time < end, in order of time (or reversed).

        A date as ``end`` is exclusive: ``range("message", "2024-05-01", "2024-06-01")`` is May.
        The arguments are checked at once; the reading is lazy, a chunk a snapshot.
        """
        db = self._db
        zone = db._engine.zone
        low = None if start is None else parse_time(start, zone=zone, field="start").start_us
        high = None if end is None else parse_time(end, zone=zone, field="end").start_us
        if limit is not None:
            validate.integer(limit, "limit", 0, 1 << 62)
        named = {
            name: validate.string(value, name)
            for name, value in (("kind", kind), ("stream", stream))
            if value is not None
        }
        condition = {"$and": [named, dict(where)]} if named and where else named or where
        walk = _Walk(
            db,
            namespace=db._read_namespace(namespace),
            kind=kind,
            stream=stream,
            rows_filter=db._reader.compile(condition),
            sample_filter=db._reader.compile(where or None),
            low=low,
            high=high,
            reverse=reverse,
        )
        return chain.from_iterable(walk.chunks(limit))

    def to_arrow(
        self,
        kind: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        stream: str | None = None,
        where: Mapping[str, Any] | None = None,
        namespace: str | None = None,
    ) -> pyarrow.Table:
        """The same range as a table: event_time, stream, source, text, and a column a data field.

        Data that is not an object goes to the column ``value``; nested values become JSON. Raises
        ``MissingDependency`` without the ``[arrow]`` extra.
        """
        found = self.range(kind, start, end, stream=stream, where=where, namespace=namespace)
        return arrow_table(found)


class _Walk:
    """One range, read chunk by chunk, each from a snapshot of its own."""

    def __init__(
        self,
        database: Database,
        *,
        namespace: str,
        kind: str | None,
        stream: str | None,
        rows_filter: filters.Filter | None,
        sample_filter: filters.Filter | None,
        low: int | None,
        high: int | None,
        reverse: bool,
    ) -> None:
        self._db = database
        self._engine = database._engine
        self._namespace = namespace
        self._kind = kind
        self._stream = stream
        self._rows_filter = rows_filter
        self._sample_filter = sample_filter
        self._low = low
        self._high = high
        self._reverse = reverse
        self._last_row: tuple[int, int] | None = None
        self._last_sample: series.Position | None = None

    def chunks(self, limit: int | None) -> Iterator[Iterable[Memory]]:
        left = limit
        while left is None or left > 0:
            want = _CHUNK if left is None else min(_CHUNK, left)
            with self._engine.store.read() as txn:
                count, chunk = self._chunk(txn, want)
            yield chunk
            if count < want:
                return
            left = None if left is None else left - count

    def _chunk(self, txn: Reader, want: int) -> tuple[int, Iterable[Memory]]:
        """The next memories and how many, up to ``want``; remembers where it stopped."""
        times, rows = self._entries(txn, want)
        samples = self._samples(txn, want)
        if not samples.memories:
            return len(rows), self._memories(txn, times, rows)
        both = np.concatenate([np.array(times, np.int64), samples.times])
        order = np.argsort(-both if self._reverse else both, kind="stable")[:want]
        of_rows = int(np.count_nonzero(order < len(times)))
        taken = samples.memories[: len(order) - of_rows]
        if taken:
            self._last_sample = series.position_of(taken[-1])
        if not of_rows:
            return len(taken), taken
        found = [*self._memories(txn, times[:of_rows], rows[:of_rows]), *taken]
        # A leg's own order is the common one: the n-th of it that is taken is its n-th.
        places = np.where(order < len(times), order, order - len(times) + of_rows)
        return len(order), [found[place] for place in places.tolist()]

    def _memories(self, txn: Reader, times: list[int], rows: list[int]) -> Iterable[Memory]:
        """The memories of rows, which are the last ones read."""
        if rows:
            self._last_row = times[-1], rows[-1]
        return self._engine.records.in_turn(txn, rows)

    def _entries(self, txn: Reader, want: int) -> tuple[list[int], list[int]]:
        """The times, in microseconds, and the rows of up to ``want`` entries past the last one."""
        allowed = self._db._reader.select(txn, self._namespace, self._rows_filter)
        low, high, last, reverse = self._low, self._high, self._last_row, self._reverse
        if last is not None:
            low, high = (low, last[0] + 1) if reverse else (last[0], high)
        if not allowed:
            return [], []
        found: list[tuple[NDArray[np.int64], NDArray[np.uint32]]] = []
        count = 0
        for times, rows in self._engine.filters.times_in_blocks(
            txn, "event_time", low, high, reverse=reverse
        ):
            found.append((times, rows))
            count += len(rows)
            if count >= want:  # by what is read so far; of it some may be left out
                found = [self._wanted(found, allowed)]
                count = len(found[0][0])
                if count >= want:
                    break
        times, rows = self._wanted(found, allowed)
        return times[:want].tolist(), rows[:want].tolist()

    def _wanted(
        self, blocks: list[tuple[NDArray[np.int64], NDArray[np.uint32]]], allowed: BitMap
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Blocks in a row, without entries that are not allowed or were read before."""
        times = np.concatenate([times for times, _ in blocks] or [np.empty(0, np.int64)])
        rows = np.concatenate([rows for _, rows in blocks] or [np.empty(0, np.uint32)])
        if not rows_bitmap(rows) <= allowed:
            kept = np.fromiter((row in allowed for row in rows.tolist()), np.bool_, len(rows))
            times, rows = times[kept], rows[kept]
        if self._last_row is not None:
            last, row = np.int64(self._last_row[0]), np.uint32(self._last_row[1])
            side = np.less if self._reverse else np.greater
            kept = side(times, last) | ((times == last) & side(rows, row))
            times, rows = times[kept], rows[kept]
        return times, rows

    def _samples(self, txn: Reader, want: int) -> series.Stretch:
        """Up to ``want`` samples past the last one that may be seen and pass the filter."""
        known = series.matching(
            txn, namespace=self._namespace, kind=self._kind, stream=self._stream
        )
        times: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        memories: list[Memory] = []
        after, full = self._last_sample, bool(known)
        while full and len(memories) < want:
            some = series.read_memories(
                txn, known, self._low, self._high, reverse=self._reverse, limit=want, after=after
            )
            full = len(some.memories) == want
            after = series.position_of(some.memories[-1]) if full else None
            kept = self._shown(some)
            times.append(kept.times)
            memories += kept.memories
        return series.Stretch(np.concatenate(times)[:want], memories[:want])

    def _shown(self, some: series.Stretch) -> series.Stretch:
        """Those that may be seen and pass the filter."""
        wanted, shows = self._sample_filter, self._engine.shows
        if wanted is None and not self._engine.granted:
            return some
        kept = [
            place
            for place, memory in enumerate(some.memories)
            if shows(memory) and (wanted is None or filters.matches(wanted, memory))
        ]
        return series.Stretch(some.times[kept], [some.memories[place] for place in kept])


def _sample(when: TimeLike, data: Any, zone: tzinfo, now_us: int) -> Sample:
    span = parse_time(when, zone=zone, field="event_time")
    return Sample(span.start_us, now_us, validate.json_data(data), None, span.zone, span.precision)


def _appending(key: SeriesKey, samples: list[Sample]) -> Callable[[Writer], list[str]]:
    def append(txn: Writer) -> list[str]:
        ids = series.append(txn, key, samples)
        txn.series_changed()
        return ids

    return append


def arrow_table(memories: Iterable[Memory]) -> pyarrow.Table:
    """Memories as the table that ``History.to_arrow`` describes."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependency("to_arrow needs pyarrow", extra="arrow") from error
    return pyarrow.Table.from_pylist([_arrow_row(memory) for memory in memories])


def _arrow_row(memory: Memory) -> dict[str, Any]:
    row = {
        "event_time": memory.event_time,
        "stream": memory.stream,
        "source": memory.source,
        "text": memory.text,
    }
    data = memory.data if isinstance(memory.data, dict) else {"value": memory.data}
    for name, value in data.items():
        nested = isinstance(value, dict | list)
        row[f"data.{name}" if name in row else name] = (
            msgspec.json.encode(value).decode() if nested else value
        )
    return row
