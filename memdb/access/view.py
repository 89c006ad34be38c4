"""An engine as a grant lets it be seen.

A ``View`` stands in for its engine wherever something is read: its live rows are those the grant's
filter selects, evaluated by the index like any filter and kept until something is written, so that
every selection, ranking, count and sample begins with them. What cannot be decided by rows goes
through it too: earlier versions, samples of series, what a memory says of others. So a grant is
enforced here, in one place, and no caller can forget it.

It does not decide what may be done, and nothing is written through it but by the engine itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pyroaring import BitMap

from memdb.engine import Engine
from memdb.query import filters
from memdb.space_views import rows_bitmap
from memdb.storage import lookups, series
from memdb.storage.environment import ReadTxn
from memdb.storage.ids import parse_id
from memdb.storage.postings import PostingsReader
from memdb.storage.records import Records
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

_TOLD_OF_OTHERS = frozenset({"derived_from"})  # of the fields that a filter may name


class View(Engine):
    """An engine within ``condition``; it shares everything else with the engine it is of."""

    granted = True
    unsure = _TOLD_OF_OTHERS

    def __init__(self, whole: Engine, condition: filters.Filter) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        self._condition = condition
        self._live = None
        self._subtrees = {}
        self._documents: tuple[tuple[int, int], int] | None = None
        self.records = _ShownRecords(self, whole.records)

    @property
    def whole(self) -> Engine:
        return self._whole

    def live(self, txn: Reader | Writer) -> BitMap:
        if isinstance(txn, Writer):  # what is not committed must not be remembered
            return self.seen(txn, self._whole.live(txn))
        cached = self._live
        if cached is not None and cached[0] == txn.state.content_seq:
            return cached[1]
        rows = self.seen(txn, self._whole.live(txn))
        self._live = (txn.state.content_seq, rows)
        return rows

    def seen(self, txn: Reader | Writer, rows: BitMap) -> BitMap:
        fetch = lambda wanted: self._whole.records.iterate(txn, wanted)
        return filters.evaluate(self._condition, txn, self.filters, rows, fetch)

    def shows(self, memory: Memory) -> bool:
        return filters.matches(self._condition, memory)

    def shown(self, txn: Reader | Writer, memory: Memory) -> Memory:
        if not memory.links and not memory.derived_from:
            return memory
        return self.shown_many(txn, [memory])[0]

    def shown_many(self, txn: Reader | Writer, memories: Sequence[Memory]) -> list[Memory]:
        """Memories without the ids of those that may not be seen, or are not there."""
        named = {one for memory in memories for one in (*memory.links, *memory.derived_from)}
        samples = series.get_many(txn, [one for one in named if series.parse_id(one) is not None])
        raw = {one: parse_id(one) for one in named if one not in samples}
        found = lookups.rows_of(txn, sorted({one for one in raw.values() if one is not None}))
        visible = self.unexpired(txn, self.live(txn), self.now())

        def is_shown(one: str) -> bool:
            if one in samples:
                return self.shows(samples[one])
            raw_id = raw[one]
            if raw_id is None:  # no id of this database: what the writer called a source
                return series.parse_id(one) is None
            return raw_id in found and found[raw_id] in visible

        kept = {one for one in named if is_shown(one)}
        return [
            memory.replace(
                links=tuple(one for one in memory.links if one in kept),
                derived_from=tuple(one for one in memory.derived_from if one in kept),
            )
            if memory.links or memory.derived_from
            else memory
            for memory in memories
        ]

    def visible(self, txn: Reader | Writer, now: datetime) -> BitMap | None:
        return self.unexpired(txn, self.live(txn), now)

    def documents(self, txn: Reader | Writer, now: datetime) -> int:
        rows = self.unexpired(txn, self.live(txn), now)
        # Time only takes rows away, so that as many of one state are the same.
        asked = (txn.state.content_seq, len(rows))
        cached = self._documents
        if cached is not None and cached[0] == asked:
            return cached[1]
        having = rows_bitmap(PostingsReader(txn).every_row()["row"])
        found = having.intersection_cardinality(rows)
        self._documents = (asked, found)
        return found


class _ShownRecords(Records):
    """Records as a view shows them: without what they tell of memories out of its sight."""

    def __init__(self, view: View, whole: Records) -> None:
        self.__dict__.update(whole.__dict__)
        self._view = view

    def get(self, txn: ReadTxn, row: int) -> Memory | None:
        memory = super().get(txn, row)
        return None if memory is None else self._view.shown(_stored(txn), memory)

    def get_many(self, txn: ReadTxn, rows: Sequence[int]) -> dict[int, Memory]:
        return self._shown(txn, super().get_many(txn, rows))

    def outlines(self, txn: ReadTxn, rows: Sequence[int]) -> dict[int, Memory]:
        return self._shown(txn, super().outlines(txn, rows))

    def _shown(self, txn: ReadTxn, found: dict[int, Memory]) -> dict[int, Memory]:
        if any(memory.links or memory.derived_from for memory in found.values()):
            shown = self._view.shown_many(_stored(txn), list(found.values()))
            return dict(zip(found, shown, strict=True))
        return found


def _stored(txn: Any) -> Reader | Writer:
    """The store's own transaction, which records are always read in here."""
    assert isinstance(txn, Reader | Writer), "views read in transactions of the store"
    return txn
