"""Writing memories: from checked drafts to acknowledged rows.

The order of work is the design's write path: validate, embed and analyse outside the
transaction; then one transaction that resolves conflicts and enters everything; then the
acknowledgement. What the transaction function does depends only on its transaction, because the
store may run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import erasure, facts, near, rows, settings, trash
from memdb.embedding import default_space
from memdb.engine import LIVE, Engine
from memdb.errors import Conflict, DimensionMismatch, InvalidArgument, NotFound
from memdb.query.tokenizer import indexed_text
from memdb.rows import Entry
from memdb.selection import Select
from memdb.storage import lookups, spaces, tables
from memdb.storage.ids import require_id
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Writer
from memdb.types import Forgotten, Memory, Status, Written
from memdb.validate import Draft

_ON_CONFLICT = ("error", "replace", "skip")
_DEDUP = ("exact", "near", "off")
_UPDATABLE = frozenset(
    "text data source kind tags metadata stream position about event_time event_end valid_from"
    " valid_to importance pinned sensitivity derived_from expires_at expires_in vector".split()
)


def check_policies(on_conflict: str, dedup: str) -> None:
    if on_conflict not in _ON_CONFLICT:
        raise InvalidArgument(
            f"on_conflict must be one of {', '.join(_ON_CONFLICT)}", field="on_conflict"
        )
    if dedup not in _DEDUP:
        raise InvalidArgument(f"dedup must be one of {', '.join(_DEDUP)}", field="dedup")


class MemoryWriter:
    """The writing verbs over one engine; stateless between calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- remember -----------------------------------------------------------------------

    def insert(
        self,
        drafts: Sequence[Draft],
        *,
        on_conflict: str = "error",
        dedup: str = "exact",
        by_id: bool = False,
    ) -> list[Written]:
        """Write a batch as one transaction; durable when this returns.

        ``by_id``: the drafts bring their ids (an import); those that exist are left alone.
        """
        return self._engine.store.write(
            self.insertion(drafts, on_conflict=on_conflict, dedup=dedup, by_id=by_id)
        )

    def insertion(
        self,
        drafts: Sequence[Draft],
        *,
        on_conflict: str = "error",
        dedup: str = "exact",
        by_id: bool = False,
    ) -> Callable[[Writer], list[Written]]:
        """The transaction function of ``insert``, for callers that write more beside it."""
        check_policies(on_conflict, dedup)
        self._engine.admission.admit(len(drafts), sum(map(content_bytes, drafts)))
        now = self._engine.now()
        entries = self.prepare(drafts, now)
        alike = near.look(self._engine, entries) if dedup == "near" else [[] for _ in entries]

        given = [(entry.memory, entry.raw_id) for entry in entries]

        def run(txn: Writer) -> list[Written]:
            for entry, (memory, raw_id) in zip(entries, given, strict=True):
                entry.memory, entry.raw_id = memory, raw_id  # an earlier run may have changed it
            insertion = _Insertion(txn, self._engine, now, on_conflict, dedup, by_id)
            return insertion.run(entries, alike)

        return run

    def prepare(self, drafts: Sequence[Draft], now: datetime) -> list[Entry]:
        """Everything about the drafts that needs no transaction: ids, vectors, terms, blobs."""
        engine = self._engine
        memories, raw_ids = self._completed(drafts, now)
        vectors = self._vectors(drafts, memories)
        texts = [indexed_text(memory) for memory in memories]
        analysed = engine.analyse(texts)
        entries = []
        for memory, raw_id, (space, vector), terms in zip(
            memories, raw_ids, vectors, analysed, strict=True
        ):
            text = memory.text
            blob = None
            if text is not None and len(text) > settings.BLOB_THRESHOLD_BYTES // 4:
                encoded = text.encode()
                if len(encoded) > settings.BLOB_THRESHOLD_BYTES:
                    blob = engine.blobs.put(encoded)
            entries.append(
                Entry(memory, raw_id=raw_id, space=space, vector=vector, analysed=terms, blob=blob)
            )
        return entries

    def _completed(
        self, drafts: Sequence[Draft], now: datetime
    ) -> tuple[list[Memory], list[bytes]]:
        """The memories with id, time of record and, for a bare fact, its text; and the raw ids."""
        without = sum([not draft.memory.id for draft in drafts])
        made = iter(self._engine.new_id.many(now, without))
        memories, raw_ids = [], []
        for draft in drafts:
            memory = draft.memory
            if memory.text is None and memory.key is not None:
                memory = memory.replace(text=facts.fact_text(memory))
            id, raw_id = (memory.id, require_id(memory.id)) if memory.id else next(made)
            memories.append(replace(memory, id=id, recorded_at=memory.recorded_at or now))
            raw_ids.append(raw_id)
        return memories, raw_ids

    def _vectors(
        self, drafts: Sequence[Draft], memories: Sequence[Memory]
    ) -> list[tuple[int, NDArray[np.float32] | None]]:
        """(space number, vector) of each; texts without one are embedded, in one batch."""
        engine = self._engine
        to_embed = [
            place
            for place, (draft, memory) in enumerate(zip(drafts, memories, strict=True))
            if draft.vector is None and memory.text is not None and memory.space is None
        ]
        found: list[tuple[int, NDArray[np.float32] | None]] = [(spaces.NO_VECTOR, None)] * len(
            drafts
        )
        texts = [memories[place].text or "" for place in to_embed]
        # Where every vector was brought, a model that cannot be loaded is not asked for.
        embedded = engine.embedding.embed(texts, "document") if texts else None
        if embedded is not None:
            space = engine.embedding.space_for(embedded.shape[1])
            for place, vector in zip(to_embed, embedded, strict=True):
                found[place] = (space.number, vector)
        known: dict[str | None, SpaceRecord] = {}
        for place, draft in enumerate(drafts):
            if draft.vector is not None:
                name = draft.memory.space
                space = known.get(name) or known.setdefault(name, self._space_for(draft))
                if len(draft.vector) != space.dim:
                    raise DimensionMismatch(
                        f"vector has {len(draft.vector)} numbers, the space {space.dim}",
                        field="vector",
                    )
                found[place] = (space.number, draft.vector)
        return found

    def _space_for(self, draft: Draft) -> SpaceRecord:
        engine = self._engine
        if draft.memory.space is None:
            return default_space(engine.store, len(draft.vector), None)
        with engine.store.read() as txn:
            return engine.require_space(txn, draft.memory.space)

    # --- update -------------------------------------------------------------------------

    def update(self, id: str, fields: Mapping[str, Any], draft: Callable[..., Draft]) -> Written:
        """A new version of a memory; ``draft`` checks the changed fields."""
        engine = self._engine
        unknown = fields.keys() - _UPDATABLE
        if unknown:
            raise InvalidArgument(
                f"{min(map(str, unknown)):.64} cannot be updated",
                field=min(map(str, unknown)),
                hint="subject, key, namespace and external_id identify a memory: write a new one",
            )
        raw_id = require_id(id)
        engine.admission.admit(1, len(str(fields.get("text") or "")))
        now = engine.now()
        with engine.store.read() as txn:
            row = lookups.row_of(txn, raw_id)
            if row is None or row not in engine.live(txn):
                raise NotFound("no memory has that id")
            old = engine.records.get(txn, row)
        if old is None:
            raise NotFound("no memory has that id")
        checked = draft(_merged(old, fields))
        new = checked.memory.replace(
            id=old.id,
            recorded_at=now,
            version=old.version + 1,
            last_used=old.last_used,
            use_count=old.use_count,
            strength=old.strength,
            links=old.links,
        )
        if new.key is not None and "text" not in fields and "data" in fields:
            new = new.replace(text=facts.fact_text(new))
        same_content = new.text == old.text and checked.vector is None
        (entry,) = self.prepare([Draft(new, checked.vector)], now) if not same_content else (None,)

        def run(txn: Writer) -> Written:
            current = lookups.row_of(txn, raw_id)
            if current != row or engine.records.get(txn, row) != old:
                raise Conflict("the memory changed meanwhile", hint="read it again and retry")
            if row not in engine.live(txn):  # a new version would bring back what was erased
                raise NotFound("the memory was forgotten or erased meanwhile")
            fitted = facts.refit(txn, engine, row, old, new)
            if entry is None:
                rows.archive(txn, engine, row, old, now)
                rows.rewrite(txn, engine, row, old, fitted)
                return Written(old.id, "replaced", fitted)
            fresh = entry.copy()
            fresh.memory = fitted
            replace_version(txn, engine, row, old, fresh, now)
            return Written(old.id, "replaced", fresh.memory)

        return engine.store.write(run)

    # --- forget and restore -------------------------------------------------------------

    def forget(self, select: Select) -> Forgotten:
        """Hide what ``select`` finds; one batch, restorable for seven days."""
        engine = self._engine
        now = engine.now()
        batch = engine.new_id(now)

        def run(txn: Writer) -> Forgotten:
            chosen = select(txn)
            memories = list(engine.records.iterate(txn, chosen.rows))
            samples = [memory.id for memory in chosen.samples]
            if memories or samples:
                trash.to_trash(txn, engine, memories, batch, now, samples)
            return Forgotten(batch, (*(memory.id for _, memory in memories), *samples))

        return engine.store.write(run)

    def restore(self, namespace: str, ids: Sequence[str] | None, batch: str | None) -> list[str]:
        """Bring forgotten memories of a namespace back; returns their ids. See ``trash``."""
        if (ids is None) == (batch is None):
            raise InvalidArgument("name either ids or batch", field="ids")
        return self._engine.store.write(trash.restoring(self._engine, namespace, ids, batch))


def content_bytes(draft: Draft) -> int:
    """About what the content of a memory takes, for who keeps a budget."""
    memory = draft.memory
    vector = 0 if draft.vector is None else 2 * len(draft.vector)
    return len(memory.text or "") + len(str(memory.data or "")) + vector


def _merged(old: Memory, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``remember`` that would make ``old`` with ``fields`` changed."""
    kept = {
        name: getattr(old, name)
        for name in (
            *("text", "data", "source", "kind", "tags", "metadata", "namespace", "stream"),
            *("position", "subject", "key", "about", "external_id", "event_time", "event_end"),
            *("valid_from", "valid_to", "importance", "pinned", "sensitivity", "derived_from"),
            *("expires_at", "space"),
        )
    }
    merged = {**kept, **fields}
    if "expires_in" in fields:
        merged["expires_at"] = None
    return merged


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


def identity_of_fact(memory: Memory) -> tuple[str, str | None, str] | None:
    """Which fact a memory is a value of; None when it is none."""
    return None if memory.key is None else (memory.namespace, memory.subject, memory.key)


class _Insertion:
    """One batch inside its transaction: conflicts and duplicates first, then the new rows."""

    def __init__(
        self,
        txn: Writer,
        engine: Engine,
        now: datetime,
        on_conflict: str,
        dedup: str,
        by_id: bool,
    ) -> None:
        self._txn = txn
        self._engine = engine
        self._now = now
        self._on_conflict = on_conflict
        self._dedup = dedup
        self._by_id = by_id
        self._live: BitMap | None = None

    def run(self, entries: list[Entry], alike: Sequence[Sequence[bytes]]) -> list[Written]:
        results: list[Written | None] = [None] * len(entries)
        pending: list[int] = []
        claimed: dict[bytes, int] = {}
        keys = [self._keys(entry) for entry in entries]
        wanted = sorted({key for pair in keys for key in pair if key is not None})
        known = self._txn.get_many(tables.EXTERNAL, wanted)
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
                meant = near.settle(self._txn, self._engine, self._alive, entry, alike[place], new)
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
        return [result for result in results if result is not None]

    def _keys(self, entry: Entry) -> tuple[bytes | None, bytes | None]:
        memory, txn = entry.memory, self._txn
        external = None
        if memory.external_id is not None:
            external = lookups.external_key(txn, memory.namespace, memory.external_id)
        if self._dedup == "off" or external is not None or memory.key is not None:
            return external, None
        content = replace(memory, id="", recorded_at=None, source="")
        payload = msgspec.msgpack.encode(content)
        if memory.text is None and entry.vector is not None:
            payload += entry.vector.tobytes()
        return external, lookups.content_key(txn, payload)

    def _alive(self, row: int) -> bool:
        if self._live is None:
            live = self._engine.filters.get_set(self._txn, LIVE)
            self._live = self._engine.unexpired(self._txn, live, self._now)
        return row in self._live

    def _holder(self, known: dict[bytes, bytes], key: bytes | None) -> tuple[int, Memory] | None:
        """The live memory stored under a key."""
        raw_id = None if key is None else known.get(key)
        row = None if raw_id is None else lookups.row_of(self._txn, raw_id)
        if row is None or not self._alive(row):
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
        holder = self._holder(known, external)
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
        holder = self._holder(known, external)
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
            entries.append(rows.twin(self._txn, self._engine, row, rest))
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
