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

from msgspec.structs import replace

from memdb import facts, near, placing, rows, settings, trash
from memdb.embedding import SpaceReplaced
from memdb.engine import Engine
from memdb.errors import Conflict, InvalidArgument, NotFound
from memdb.insertion import Insertion, replace_version, require_seen
from memdb.query.tokenizer import indexed_text
from memdb.rows import Entry
from memdb.selection import Select
from memdb.storage import lookups
from memdb.storage.ids import require_id
from memdb.storage.store import Writer
from memdb.types import Forgotten, Memory, Written
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

    def __init__(self, engine: Engine, view: Engine | None = None) -> None:
        self._engine = engine
        self._view = engine if view is None else view  # what the writer of these memories may see

    # --- remember -----------------------------------------------------------------------

    def insert(
        self,
        drafts: Sequence[Draft],
        *,
        on_conflict: str = "error",
        dedup: str = "exact",
        by_id: bool = False,
        committing: Callable[[], None] | None = None,
    ) -> list[Written]:
        """Write a batch as one transaction; durable when this returns.

        ``by_id``: the drafts bring their ids (an import); those that exist are left alone.
        ``committing`` is called while the disk is waited for: see ``Store.write``.
        """
        while True:
            try:
                return self._engine.store.write(
                    self.insertion(drafts, on_conflict=on_conflict, dedup=dedup, by_id=by_id),
                    committing=committing,
                )
            except SpaceReplaced:
                continue

    def insertion(
        self,
        drafts: Sequence[Draft],
        *,
        on_conflict: str = "error",
        dedup: str = "exact",
        by_id: bool = False,
    ) -> Callable[[Writer], list[Written]]:
        """The transaction function of ``insert``, for callers that write more beside it.

        It raises ``SpaceReplaced`` where a re-embedding ended since: make another.
        """
        check_policies(on_conflict, dedup)
        self._engine.admission.admit(len(drafts), sum(map(content_bytes, drafts)))
        now = self._engine.now()
        entries = self.prepare(drafts, now)
        alike = near.look(self._view, entries) if dedup == "near" else [[] for _ in entries]

        given = [(entry.memory, entry.raw_id) for entry in entries]

        def run(txn: Writer) -> list[Written]:
            for entry, (memory, raw_id) in zip(entries, given, strict=True):
                entry.memory, entry.raw_id = memory, raw_id  # an earlier run may have changed it
            insertion = Insertion(txn, self._view, now, on_conflict, dedup, by_id)
            return insertion.run(entries, alike)

        return run

    def prepare(self, drafts: Sequence[Draft], now: datetime) -> list[Entry]:
        """Everything about the drafts that needs no transaction: ids, vectors, terms, blobs."""
        engine = self._engine
        memories, raw_ids = self._completed(drafts, now)
        places = placing.place(engine, drafts, memories)
        texts = [indexed_text(memory) for memory in memories]
        analysed = engine.analyse(texts)
        entries = []
        for memory, raw_id, placed, terms in zip(memories, raw_ids, places, analysed, strict=True):
            text = memory.text
            blob = None
            if text is not None and len(text) > settings.BLOB_THRESHOLD_BYTES // 4:
                encoded = text.encode()
                if len(encoded) > settings.BLOB_THRESHOLD_BYTES:
                    blob = engine.blobs.put(encoded)
            entries.append(Entry(memory, raw_id=raw_id, placed=placed, analysed=terms, blob=blob))
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

    # --- update -------------------------------------------------------------------------

    def update(
        self,
        id: str,
        fields: Mapping[str, Any],
        draft: Callable[[Memory, Mapping[str, Any]], Draft],
    ) -> Written:
        """A new version of a memory; ``draft`` makes it of the old one and the changed fields."""
        while True:
            try:
                return self._update(id, fields, draft)
            except SpaceReplaced:
                continue

    def _update(
        self,
        id: str,
        fields: Mapping[str, Any],
        draft: Callable[[Memory, Mapping[str, Any]], Draft],
    ) -> Written:
        engine, view = self._engine, self._view
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
            if row is None or row not in view.live(txn):
                raise NotFound("no memory has that id")
            old = engine.records.get(txn, row)
        if old is None:
            raise NotFound("no memory has that id")
        checked = draft(old, fields)
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
            if row not in view.live(txn):  # a new version would bring back what was erased
                raise NotFound("the memory was forgotten or erased meanwhile")
            if view.granted:
                require_seen(txn, view, [new], old)
            fitted = facts.refit(txn, engine, row, old, new)
            if entry is None:
                rows.archive(txn, engine, row, old, now)
                rows.rewrite(txn, engine, row, old, fitted)
                return Written(old.id, "replaced", view.shown(txn, fitted))
            fresh = entry.copy()
            fresh.memory = fitted
            replace_version(txn, engine, row, old, fresh, now)
            return Written(old.id, "replaced", view.shown(txn, fresh.memory))

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
        return self._engine.store.write(trash.restoring(self._view, namespace, ids, batch))


def content_bytes(draft: Draft) -> int:
    """About what the content of a memory takes, for who keeps a budget."""
    memory = draft.memory
    vector = 0 if draft.vector is None else 2 * len(draft.vector)
    return len(memory.text or "") + len(str(memory.data or "")) + vector


def with_changes(old: Memory, fields: Mapping[str, Any]) -> dict[str, Any]:
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
