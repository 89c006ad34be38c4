"""``db.history``: what happened when, in streams.

Events with text are records like any other, found by ``recall`` and filters. Events with data and
no text (a sensor's samples) go into compressed columnar blocks, a few bytes each; a range reads
both, in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memdb import validate
from memdb.storage.store import Reader
from memdb.types import Memory, Written, to_micros
from memdb.validate import TimeLike

if TYPE_CHECKING:
    import pyarrow

    from memdb.database import Database

_CHUNK = 1_024


class History:
    """Timestamped memories: append them, and read them back by time."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def append(
        self,
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
        low, high = (
            None if value is None else to_micros(validate.moment(value, field, zone) or db._engine.now())
            for value, field in ((start, "start"), (end, "end"))
        )
        if limit is not None:
            validate.integer(limit, "limit", 0, 1 << 62)
        condition: dict[str, Any] = {}
        if kind is not None:
            condition["kind"] = validate.string(kind, "kind")
        if stream is not None:
            condition["stream"] = validate.string(stream, "stream")
        if where:
            condition = {"$and": [condition, dict(where)]} if condition else dict(where)
        compiled = db._reader.compile(condition or None)
        scope = db._read_namespace(namespace)
        return self._walk(compiled, scope, low, high, limit, reverse)

    def _walk(
        self,
        compiled: Any,
        scope: str,
        low: int | None,
        high: int | None,
        limit: int | None,
        reverse: bool,
    ) -> Iterator[Memory]:
        """Chunk by chunk, each from a snapshot of its own, resuming after the last entry."""
        engine, last = self._db._engine, None
        left = limit
        while left is None or left > 0:
            want = _CHUNK if left is None else min(_CHUNK, left)
            with engine.store.read() as txn:
                rows = self._db._reader.select(txn, scope, compiled)
                entries = self._entries(txn, rows, low, high, reverse, last, want)
                found = engine.records.get_many(txn, [row for _, row in entries])
            for entry in entries:
                yield found[entry[1]]
            if len(entries) < want:
                return
            last = entries[-1]
            left = None if left is None else left - len(entries)

    def _entries(
        self,
        txn: Reader,
        rows: Any,
        low: int | None,
        high: int | None,
        reverse: bool,
        last: tuple[int, int] | None,
        want: int,
    ) -> list[tuple[int, int]]:
        """Up to ``want`` of (microseconds, row) past ``last``."""
        if last is not None and reverse:
            high = last[0] + 1
        elif last is not None:
            low = last[0]
        found = []
        for entry in self._db._engine.filters.times_in_order(
            txn, "event_time", low, high, reverse=reverse
        ):
            if last is not None and (entry >= last if reverse else entry <= last):
                continue
            if entry[1] in rows:
                found.append(entry)
                if len(found) == want:
                    break
        return found
