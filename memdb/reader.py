"""Reading memories without ranking them: by id, by filter, in order, by value.

Selection is the same for every verb: the live rows of the namespace and everything under it, not
expired at this moment, that pass the filter. Long iterations reopen their snapshot, so that no
reader pins the store's pages for longer than a chunk.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from pyroaring import BitMap

from memdb import validate
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import InvalidArgument
from memdb.query import filters
from memdb.storage import lookups, series
from memdb.storage.filters import field_values
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory, Page, to_micros

_CHUNK = 512
_ORDERS = ("event_time", "recorded_at")
_VALIDITY = frozenset({"valid_from", "valid_to"})


class MemoryReader:
    """The reading verbs over one engine, within one namespace; stateless between calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- selection ----------------------------------------------------------------------

    def compile(
        self, where: Mapping[str, Any] | None, txn: Reader | Writer | None = None
    ) -> filters.Filter | None:
        """The filter of a ``where``; None selects everything. With ``txn`` it opens none."""
        if where is None:
            return None
        zone = self._engine.zone if txn is None else self._engine.zone_in(txn)
        compiled = filters.parse(where, zone=zone)
        return None if compiled == filters.EVERYTHING else compiled

    def select(
        self,
        txn: Reader | Writer,
        namespace: str,
        condition: filters.Filter | None,
        *,
        now: datetime | None = None,
        valid_at: datetime | None = None,
        plan: dict[str, Any] | None = None,
    ) -> BitMap:
        """The rows a read may see and the filter passes.

        ``valid_at`` keeps what was true at that moment, unless the filter speaks of validity
        itself. The result may be shared: do not change it.
        """
        engine = self._engine
        rows = engine.unexpired(txn, engine.subtree(txn, namespace), now or engine.now())
        if valid_at is not None and not (condition is not None and _speaks_of_validity(condition)):
            rows = engine.valid_at(txn, rows, valid_at)
        if condition is None:
            return rows
        fetch = lambda wanted: engine.records.iterate(txn, wanted)
        found = filters.explain(condition, txn, engine.filters, rows, fetch, unsure=engine.unsure)
        if plan is not None and engine.granted:  # estimates are of the whole store
            plan["filter"] = {"condition": str(condition), "matches": len(found.rows)}
        elif plan is not None:
            plan["filter"] = {**found.plan.to_dict(), "checked": found.checked}
        return found.rows

    def known(
        self, txn: Reader | Writer, namespace: str, condition: filters.Filter | None
    ) -> BitMap:
        """The rows that are stored, be they visible, expired, in the trash or evicted and not yet
        removed, of a filter."""
        from memdb.retention import leaving  # which imports what reads

        engine = self._engine
        rows = engine.filters.get_set(txn, LIVE) | engine.filters.get_set(txn, HIDDEN)
        rows |= leaving.rows(txn)
        if namespace:
            rows &= engine.filters.subtree(txn, namespace)
        rows = engine.seen(txn, rows)
        if condition is None:
            return rows
        fetch = lambda wanted: engine.records.iterate(txn, wanted)
        found = filters.explain(condition, txn, engine.filters, rows, fetch, unsure=engine.unsure)
        return found.rows

    # --- by id --------------------------------------------------------------------------

    def get(self, namespace: str, id: str, as_of: datetime | None = None) -> Memory | None:
        """The current version of a memory, or the one memdb believed at ``as_of``."""
        if is_sample(id):
            with self._engine.store.read() as txn:
                return self.samples(txn, namespace, [id]).get(id)
        raw_id = require_id(id)
        with self._engine.store.read() as txn:
            row = lookups.row_of(txn, raw_id)
            if row is None or row not in self.select(txn, namespace, None):
                return None
            current = self._engine.records.get(txn, row)
            if current is None or as_of is None:
                return current
            earlier = self._engine.records.get_many(txn, lookups.versions(txn, raw_id))
            candidates = [current, *filter(self._engine.shows, earlier.values())]
        return next((m for m in candidates if _believed(m, as_of)), None)

    def by_external_id(self, namespace: str, external_id: str) -> Memory | None:
        with self._engine.store.read() as txn:
            key = lookups.external_key(txn, namespace, external_id)
            raw_id = lookups.id_under(txn, key)
            row = None if raw_id is None else lookups.row_of(txn, raw_id)
            if row is None or row not in self.select(txn, namespace, None):
                return None
            return self._engine.records.get(txn, row)

    def get_many(self, namespace: str, ids: Sequence[str]) -> list[Memory | None]:
        """The memories in the order of ``ids``; None where there is none."""
        raw = [b"" if is_sample(one) else require_id(one, "ids") for one in ids]
        with self._engine.store.read() as txn:
            samples = self.samples(txn, namespace, [one for one in ids if is_sample(one)])
            visible = self.select(txn, namespace, None)
            found = lookups.rows_of(txn, sorted({one for one in raw if one}))
            rows = {raw_id: row for raw_id, row in found.items() if row in visible}
            memories = self._engine.records.get_many(txn, sorted(rows.values()))
        return [
            samples.get(id) if not one else memories.get(rows[one]) if one in rows else None
            for id, one in zip(ids, raw, strict=True)
        ]

    def samples(
        self, txn: Reader | Writer, namespace: str, ids: Sequence[str], *, hidden: bool = False
    ) -> dict[str, Memory]:
        """The samples of those ids that the namespace covers; visible ones, or ``hidden`` too."""
        found = series.get_many(txn, ids) if ids else {}
        if hidden:
            found = {**found, **series.hidden_of(txn, ids)}
        shows = self._engine.shows
        return {id: m for id, m in found.items() if covers(namespace, m) and shows(m)}

    def versions(self, namespace: str, id: str) -> list[Memory]:
        """Every version of a visible memory, oldest first, the current one last."""
        raw_id = require_id(id)
        with self._engine.store.read() as txn:
            row = lookups.row_of(txn, raw_id)
            if row is None or row not in self.select(txn, namespace, None):
                return []
            rows = [*lookups.versions(txn, raw_id), row]
            found = self._engine.records.get_many(txn, rows)
        shows = self._engine.shows
        return [found[one] for one in rows if one in found and (one == row or shows(found[one]))]

    # --- by filter ----------------------------------------------------------------------

    def count(self, namespace: str, where: Mapping[str, Any] | None) -> int:
        with self._engine.store.read() as txn:
            return len(self.select(txn, namespace, self.compile(where, txn)))

    def iterate(self, namespace: str, where: Mapping[str, Any] | None) -> Iterator[Memory]:
        """Every selected memory, in the order written; the filter is checked at once."""
        return self._iterate(namespace, self.compile(where))

    def _iterate(self, namespace: str, condition: filters.Filter | None) -> Iterator[Memory]:
        after = -1
        while True:
            with self._engine.store.read() as txn:
                rows = self.select(txn, namespace, condition)
                place = 0 if after < 0 else rows.rank(after)
                chunk = list(rows[place : place + _CHUNK])
                memories = list(self._engine.records.iterate(txn, chunk))
            if not chunk:
                return
            yield from (memory for _, memory in memories)
            after = chunk[-1]

    def values(
        self, namespace: str, field: str, where: Mapping[str, Any] | None
    ) -> list[tuple[Any, int]]:
        """How many selected memories have each value of ``field``, most frequent first."""
        filters.parse({field: {"$exists": True}}, zone=self._engine.zone)  # an unknown field raises
        condition = self.compile(where)
        with self._engine.store.read() as txn:
            rows = self.select(txn, namespace, condition)
            if field in self._engine.unsure:
                return self._values_shown(txn, field, rows)
            return list(self._engine.filters.values(txn, field, rows))

    def _values_shown(self, txn: Reader, field: str, rows: BitMap) -> list[tuple[Any, int]]:
        """The same of a field of which a memory may show less than the index knows."""
        having = rows & self._engine.filters.present(txn, field)
        counts = Counter(
            value
            for _, memory in self._engine.records.iterate(txn, having)
            for value in field_values(memory, field) or ()
        )
        return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))

    def namespaces(self, namespace: str) -> list[str]:
        """Those of memories and of samples, which have no rows."""
        found = {name for name, _ in self.values(namespace, "namespace", None)}
        with self._engine.store.read() as txn:
            for name, one in series.matching(txn, namespace=namespace).items():
                if one.samples > one.hidden and one.key.namespace not in found:
                    samples = (
                        series.to_memory(one.key, sample)
                        for sample in series.read_range(txn, {name: one})
                    )
                    if any(map(self._engine.shows, samples)):
                        found.add(one.key.namespace)
        return sorted(found)

    def page(
        self,
        namespace: str,
        where: Mapping[str, Any] | None,
        *,
        order_by: str,
        descending: bool,
        limit: int,
        cursor: str | None,
    ) -> Page:
        """One page in time order; memories without the time come last, in the order written."""
        if order_by not in _ORDERS:
            raise InvalidArgument(f"order_by must be one of {', '.join(_ORDERS)}", field="order_by")
        validate.integer(limit, "limit", 1, 10_000)
        condition = self.compile(where)
        engine = self._engine
        with engine.store.read() as txn:
            after = None
            if cursor is not None:
                after = read_cursor(txn, engine, cursor, order_by, descending)
            rows = self.select(txn, namespace, condition)
            chosen = self._ordered(txn, rows, order_by, descending, after, limit + 1)
            memories = engine.records.get_many(txn, [row for _, row in chosen[:limit]])
        items = tuple(memories[row] for _, row in chosen[:limit])
        if len(chosen) <= limit:
            return Page(items)
        micros, row = chosen[limit - 1]
        return Page(items, make_cursor(engine, order_by, descending, micros, row, items[-1]))

    def _ordered(
        self,
        txn: Reader,
        rows: BitMap,
        field: str,
        descending: bool,
        after: tuple[int | None, int] | None,
        limit: int,
    ) -> list[tuple[int | None, int]]:
        """Up to ``limit`` of (time or None, row), past ``after``, in the page's order."""
        found: list[tuple[int | None, int]] = []
        if after is None or after[0] is not None:
            low, high = (None, None) if after is None else (after[0], None)
            if descending:
                low, high = None, None if after is None or after[0] is None else after[0] + 1
            entries = self._engine.filters.times_in_order(txn, field, low, high, reverse=descending)
            for micros, row in entries:
                if row in rows and is_past((micros, row), after, descending):
                    found.append((micros, row))
                    if len(found) == limit:
                        return found
            after = None
        timeless = rows - self._engine.filters.present(txn, field)
        start = 0 if after is None or after[1] < 0 else timeless.rank(after[1])
        found.extend((None, row) for row in timeless[start : start + limit - len(found)])
        return found


def is_sample(id: object) -> bool:
    """Whether ``id`` is that of a sample of a series rather than of a record."""
    return isinstance(id, str) and series.parse_id(id) is not None


def covers(namespace: str, memory: Memory) -> bool:
    """Whether a memory lies in a namespace or under it; everything lies in ``""``."""
    return not namespace or f"{memory.namespace}/".startswith(f"{namespace}/")


def _speaks_of_validity(condition: filters.Filter) -> bool:
    if getattr(condition, "field", None) in _VALIDITY:
        return True
    return any(_speaks_of_validity(child) for child in condition.children)


def is_past(entry: tuple[int, int], after: tuple[int | None, int] | None, descending: bool) -> bool:
    if after is None or after[0] is None:
        return True
    return entry < (after[0], after[1]) if descending else entry > (after[0], after[1])


def _believed(memory: Memory, moment: datetime) -> bool:
    """Whether memdb held this version for true at ``moment`` (transaction time)."""
    if memory.recorded_at is None or memory.recorded_at > moment:
        return False
    return memory.retired_at is None or memory.retired_at > moment


def make_cursor(
    engine: Engine, order_by: str, descending: bool, micros: int | None, row: int, last: Memory
) -> str:
    """Where a page ended: at a row or, where a grant limits what is seen, at a memory's id, since
    the number of a row tells how many others there are."""
    place = require_id(last.id) if engine.granted else row
    packed = msgspec.msgpack.encode((order_by, descending, micros, place))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_cursor(
    txn: Reader, engine: Engine, text: str, order_by: str, descending: bool
) -> tuple[int | None, int]:
    """(time, row) of the last one seen. One that is gone meanwhile stood before all of its time,
    so that none is passed over."""
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        made_for, direction, micros, place = msgspec.msgpack.decode(
            packed, type=tuple[str, bool, int | None, int | bytes]
        )
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise InvalidArgument("cursor is not one that list returned", field="cursor") from error
    if (made_for, direction) != (order_by, descending) or (
        isinstance(place, int) and engine.granted
    ):
        raise InvalidArgument("cursor belongs to another order", field="cursor")
    if isinstance(place, int):
        return micros, place
    row = lookups.row_of(txn, place)
    if row is not None and row in engine.live(txn):
        return micros, row
    return micros, 1 << 32 if descending and micros is not None else -1


def micros_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)
