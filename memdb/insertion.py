"""One batch inside its write transaction: conflicts and duplicates first, then the new rows.

What an entry meets is what its writer may see: a memory out of sight is no duplicate of anything,
nothing derives from it, and where a name must be unique (the caller's own id, a fact) it is a
``Conflict``. What a transaction function does depends only on its transaction, because the store
may run it again. How a row is entered is for ``rows`` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace
from pyroaring import BitMap

from memdb import erasure, facts, near, rows
from memdb.engine import LIVE, Engine
from memdb.errors import Conflict, InvalidArgument, NotFound
from memdb.reader import is_sample
from memdb.rows import Entry
from memdb.storage import lookups, series
from memdb.storage.ids import require_id
from memdb.storage.records import encode
from memdb.storage.store import Writer
from memdb.types import Memory, Status, Written


def replace_version(
    txn: Writer, engine: Engine, row: int, old: Memory, entry: Entry, now: datetime
) -> int:
    """Retire ``row`` and enter the memory's next version in a new one, which takes its place in
    the timeline of a fact."""
    rows.retire(txn, engine, row, old, now)
    (new_row,) = rows.enter(txn, engine, [entry])
    if old.key is not None:
        key = lookups.profile_key(txn, old.namespace, old.subject or "", old.key)
        timeline = [new_row if other == row else other for other in lookups.timeline(txn, key)]
        lookups.set_timeline(txn, key, timeline)
    return new_row


def require_seen(
    txn: Writer, view: Engine, memories: Sequence[Memory], old: Memory | None = None
) -> None:
    """Refuse what would be derived from, or would end, something that the writer may not see.

    Raises ``NotFound`` for what it derives from, be it hidden or absent, and ``Conflict`` for a
    value of a fact. What ``old`` was derived from already stays.
    """
    visible = view.unexpired(txn, view.live(txn), view.now())
    known = set() if old is None else set(old.derived_from)
    for memory in memories:
        wanted = [one for one in memory.derived_from if one not in known]
        if wanted:
            samples = series.get_many(txn, [one for one in wanted if is_sample(one)])
            ids = [require_id(one, "derived_from") for one in wanted if not is_sample(one)]
            found = lookups.rows_of(txn, sorted(ids))
            seen = sum(row in visible for row in found.values())
            if seen + sum(map(view.shows, samples.values())) < len(wanted):
                raise NotFound("no memory has an id that derived_from names")
        if memory.key is not None:
            key = lookups.profile_key(txn, memory.namespace, memory.subject or "", memory.key)
            hidden = [row for row in lookups.timeline(txn, key) if row not in visible]
            values = view.whole.records.get_many(txn, hidden).values() if hidden else ()
            if not all(facts.expired(value, view.now()) for value in values):
                raise Conflict("the fact has a value that this principal may not see")


def identity_of_fact(memory: Memory) -> tuple[str, str | None, str] | None:
    """Which fact a memory is a value of; None when it is none."""
    return None if memory.key is None else (memory.namespace, memory.subject, memory.key)


class Insertion:
    """One batch inside its transaction: conflicts and duplicates first, then the new rows."""

    def __init__(
        self,
        txn: Writer,
        view: Engine,
        now: datetime,
        on_conflict: str,
        dedup: str,
        by_id: bool,
    ) -> None:
        self._txn = txn
        self._engine = view.whole
        self._view = view
        self._now = now
        self._on_conflict = on_conflict
        self._dedup = dedup
        self._by_id = by_id
        self._live: BitMap | None = None
        self._seen: BitMap | None = None

    def run(self, entries: list[Entry], alike: Sequence[Sequence[bytes]]) -> list[Written]:
        if self._view.granted:
            require_seen(self._txn, self._view, [entry.memory for entry in entries])
        results: list[Written | None] = [None] * len(entries)
        pending: list[int] = []
        claimed: dict[bytes, int] = {}
        keys = [self._keys(entry) for entry in entries]
        wanted = sorted({key for pair in keys for key in pair if key is not None})
        known = lookups.ids_under(self._txn, wanted)
        ids = sorted(entry.raw_id for entry in entries) if self._by_id else []
        stored = lookups.rows_of(self._txn, ids)
        raw_ids = [entry.raw_id for entry in entries] if self._by_id else []
        gone = erasure.erased_places(self._txn, raw_ids, [external for external, _ in keys])
        if gone and self._on_conflict == "error":
            raise Conflict(
                "what had that external_id was erased, and the id stays taken",
                hint="write it under another external_id, or leave it with on_conflict='skip'",
            )
        met: set[bytes] = set()  # ids that the batch itself brings twice
        for place, entry in enumerate(entries):
            external, content = keys[place]
            twin = claimed.get(external) if external is not None else None
            if twin is None and content is not None:
                twin = claimed.get(content)
            if place in gone:
                results[place] = Written(entry.memory.id, "erased", entry.memory)
            elif entry.raw_id in stored or (self._by_id and entry.raw_id in met):
                results[place] = Written(entry.memory.id, "duplicate", entry.memory)
            elif twin is not None and entry.memory.key is None:
                results[place] = self._twin(entries, place, twin, external)
            elif entry.memory.key is not None:
                results[place] = self._fact(entry, known, external)
            else:
                results[place] = self._known(entry, known, external, content)
            met.add(entry.raw_id)
            if results[place] is None and alike[place]:
                new = {entries[p].raw_id: entries[p].memory for p in pending}
                sight = self._in_sight
                meant = near.settle(self._txn, self._engine, sight, entry, alike[place], new)
                results[place] = Written(meant.id, "duplicate", meant) if meant else None
            if results[place] is None:
                pending.append(place)
                for key in (external, content):
                    if key is not None:
                        claimed[key] = place
        self._enter([entries[place] for place in pending], [keys[place] for place in pending])
        for place in pending:
            memory = entries[place].memory
            status: Status = "linked" if alike[place] and memory.links else "inserted"
            results[place] = Written(memory.id, status, memory)
        written = [result for result in results if result is not None]
        if self._view.granted:
            shown = self._view.shown
            return [Written(w.id, w.status, shown(self._txn, w.memory)) for w in written]
        return written

    def _keys(self, entry: Entry) -> tuple[bytes | None, bytes | None]:
        memory, txn = entry.memory, self._txn
        external = None
        if memory.external_id is not None:
            external = lookups.external_key(txn, memory.namespace, memory.external_id)
        if self._dedup == "off" or external is not None or memory.key is not None:
            return external, None
        content = replace(memory, id="", recorded_at=None, source="")
        payload = encode(content)
        if memory.text is None and entry.vector is not None:
            payload += entry.vector.tobytes()
        return external, lookups.content_key(txn, payload)

    def _alive(self, row: int) -> bool:
        if self._live is None:
            live = self._engine.filters.get_set(self._txn, LIVE)
            self._live = self._engine.unexpired(self._txn, live, self._now)
        return row in self._live

    def _in_sight(self, row: int) -> bool:
        """Whether a row is alive and the writer may see it."""
        if not self._view.granted:
            return self._alive(row)
        if self._seen is None:
            self._seen = self._view.live(self._txn)
        return self._alive(row) and row in self._seen

    def _holder(
        self, known: dict[bytes, bytes], key: bytes | None, *, unique: bool = False
    ) -> tuple[int, Memory] | None:
        """The live memory stored under a key, if it is in sight; ``Conflict`` where it is not and
        the key is ``unique``."""
        raw_id = None if key is None else known.get(key)
        row = None if raw_id is None else lookups.row_of(self._txn, raw_id)
        if row is None or not self._alive(row):
            return None
        if not self._in_sight(row):
            if unique:
                raise Conflict("a memory with that external_id exists in the namespace")
            return None
        memory = self._engine.records.get(self._txn, row)
        return None if memory is None else (row, memory)

    def _known(
        self,
        entry: Entry,
        known: dict[bytes, bytes],
        external: bytes | None,
        content: bytes | None,
    ) -> Written | None:
        """The outcome for an entry that meets a stored memory; None when it is new."""
        holder = self._holder(known, external, unique=True)
        if holder is not None:
            return self._conflict(entry, *holder)
        holder = self._holder(known, content)
        return None if holder is None else Written(holder[1].id, "duplicate", holder[1])

    def _conflict(self, entry: Entry, row: int, old: Memory) -> Written:
        if self._on_conflict == "error":
            raise Conflict("a memory with that external_id exists in the namespace")
        if self._on_conflict == "skip":
            return Written(old.id, "duplicate", old)
        new = entry.memory
        if identity_of_fact(new) != identity_of_fact(old):
            raise Conflict(
                "that external_id is of another fact",
                hint="forget the memory that has it, then write the new one",
            )
        if new.key is not None:
            if new.valid_from is None:
                new = new.replace(valid_from=old.valid_from)
            entry.memory = facts.refit(self._txn, self._engine, row, old, new)
        return self._next_version(entry, row, old)

    def _next_version(self, entry: Entry, row: int, old: Memory) -> Written:
        """Write the entry as the next version of a stored memory."""
        entry.raw_id = require_id(old.id)
        entry.memory = entry.memory.replace(
            id=old.id,
            version=old.version + 1,
            external_id=entry.memory.external_id or old.external_id,
            last_used=old.last_used,
            use_count=old.use_count,
            strength=old.strength,
        )
        replace_version(self._txn, self._engine, row, old, entry, self._now)
        return Written(old.id, "replaced", entry.memory)

    def _twin(self, entries: list[Entry], place: int, twin: int, external: bytes | None) -> Written:
        """The outcome for an entry equal to an earlier one of the same batch."""
        first = entries[twin].memory
        if external is not None and self._on_conflict == "error":
            raise Conflict("two items of the batch have the same external_id")
        if external is not None and self._on_conflict == "replace":
            raise InvalidArgument(
                "two items of the batch have the same external_id", field="external_id"
            )
        return Written(first.id, "duplicate", first)

    def _fact(self, entry: Entry, known: dict[bytes, bytes], external: bytes | None) -> Written:
        """Profile facts go one by one: each may close the one before it."""
        holder = self._holder(known, external, unique=True)
        if holder is not None:
            return self._conflict(entry, *holder)
        placed = facts.place(
            self._txn, self._engine, entry.memory, self._now, restoring=self._by_id
        )
        if placed.same_row is not None:
            return Written(placed.memory.id, "duplicate", placed.memory)
        entry.memory = placed.memory
        if placed.corrects is not None:
            done = self._next_version(entry, *placed.corrects)
            if external is not None:
                lookups.put_under(self._txn, external, entry.raw_id)
                known[external] = entry.raw_id
            return done
        entries = [entry]
        keys: list[tuple[bytes | None, bytes | None]] = [(external, None)]
        if placed.resumes is not None:
            row, rest = placed.resumes
            rest = rest.replace(id=self._engine.new_id(self._now), version=1)
            entries += rows.twins(self._txn, self._engine, {row: rest})
            keys.append((None, None))
        placed.enter(self._enter(entries, keys))
        if external is not None:
            known[external] = entry.raw_id
        return Written(entry.memory.id, placed.status, entry.memory)

    def _enter(
        self, entries: list[Entry], keys: list[tuple[bytes | None, bytes | None]]
    ) -> list[int]:
        if not entries:
            return []
        entered = rows.enter(self._txn, self._engine, entries)
        pairs = [
            (key, entry.raw_id)
            for entry, pair in zip(entries, keys, strict=True)
            for key in pair
            if key is not None
        ]
        lookups.put_many_under(self._txn, pairs)
        return entered
