"""``feedback``: what was used of what a search found. Retention reads it; ranking never does.

A confirmed use sets ``last_used``, counts, and makes a memory fade more slowly
(``retention.value``). It counts at most once in a quarter of an hour for a memory, and a search's
feedback that is given twice counts once: a use after the search was made is already in the
record. Being found again and again is no use, so that a wrong answer that is often returned does
not become immortal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from memdb import rows, settings
from memdb.engine import Engine
from memdb.errors import InvalidArgument, NotFound
from memdb.reader import MemoryReader
from memdb.retention import value
from memdb.storage import lookups
from memdb.storage.ids import require_id
from memdb.storage.store import Writer
from memdb.types import Feedback, Memory, to_micros

_MS: int = 1_000


def giving(
    engine: Engine, reader: MemoryReader, namespace: str, search_id: str, used: Sequence[str]
) -> Callable[[Writer], Feedback]:
    """The transaction that records the uses; checked before anything is written."""
    searched_us = int.from_bytes(require_id(search_id, "search_id")[:6], "big") * _MS
    listed = [used] if isinstance(used, str) else list(used)
    if len(listed) > settings.MAX_K:
        raise InvalidArgument(f"used has more than {settings.MAX_K} ids", field="used")
    ids = {require_id(one, "used"): one for one in listed}
    now = engine.now()

    def give(txn: Writer) -> Feedback:
        visible = reader.select(txn, namespace, None)
        found = lookups.rows_of(txn, sorted(ids))
        known = {raw: row for raw, row in found.items() if row in visible}
        if len(known) < len(ids):
            raise NotFound("a memory that was used is not there", hint="leave its id out")
        memories = engine.records.get_many(txn, sorted(known.values()))
        counted: list[str] = []
        for raw in ids:
            old = memories[known[raw]]
            if not _counts(old, searched_us, now):
                continue
            rows.rewrite(txn, engine, known[raw], old, _used(old, now))
            counted.append(old.id)
        rest = tuple(id for id in ids.values() if id not in counted)
        return Feedback(search_id, tuple(counted), rest)

    return give


def _counts(memory: Memory, searched_us: int, now: datetime) -> bool:
    last = None if memory.last_used is None else to_micros(memory.last_used)
    if last is not None and last >= searched_us:
        return False  # this very search's feedback, or one for a later search, is in it
    return value.may_reinforce(last, to_micros(now))


def _used(memory: Memory, now: datetime) -> Memory:
    """The memory after a use. What does not decay keeps no strength."""
    first = value.first_strength(
        value.class_of(memory.kind, memory.stream, memory.metadata.get("retention"))
    )
    strength = memory.strength
    if math.isfinite(first):
        since = memory.last_used or memory.recorded_at or now
        days = float(value.elapsed_days(to_micros(since), to_micros(now)))
        before = first if strength is None else strength
        strength = value.reinforced(before, float(value.retention(days, before)))
    return memory.replace(last_used=now, use_count=memory.use_count + 1, strength=strength)
