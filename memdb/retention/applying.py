"""Applying a plan: each memory in one step that happens or does not, whenever the process ends.

What can be undone comes first, in one transaction with the look at what the plan is bound to. The
rest follows in short transactions, each of which looks at its memories again: what changed since
the plan was made is left alone and reported. This file does what a plan says; it decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Literal

import msgspec
from pyroaring import BitMap

from memdb import trash
from memdb.engine import LIVE, Engine
from memdb.errors import Conflict, InvalidArgument
from memdb.retention import leaving, pointers
from memdb.retention.planning import Plan, PlanItem
from memdb.storage import lookups
from memdb.storage.changes import changes_since
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

Changed = Literal["error", "skip"]
_AT_ONCE: Final = 32
_HIDDEN_AT_ONCE: Final = 128


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a plan did.

    ``batch`` undoes what can be undone, for seven days; None where nothing can. ``done`` counts
    memories by action. ``skipped``: ids of memories that changed since the plan was made.
    """

    batch: str | None
    done: dict[str, int]
    skipped: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Applier:
    """The steps of one plan on one engine."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self._engine = engine
        self._plan = plan
        self.batch: str | None = None
        self.done: Counter[str] = Counter()
        self.skipped: list[str] = []
        self._between: Callable[[], object] = lambda: None

    def forget(
        self, changed: Changed, derive: Callable[[dict[str, Any]], Callable[[Writer], Any]]
    ) -> None:
        """Check what the plan is bound to, and put into the trash what goes there.

        ``derive`` makes, of the arguments of a consolidated memory, the function that writes it.
        Raises ``Conflict`` when anything changed since, unless ``changed`` is "skip".
        """
        if changed not in ("error", "skip"):
            raise InvalidArgument('changed must be "error" or "skip"', field="changed")
        engine, plan = self._engine, self._plan
        items = plan.of("forget", "consolidate")
        writes = [derive(made) for made in plan.derived]
        now = engine.now()
        batch = engine.new_id(now)
        if not items and not writes:
            with engine.store.read() as txn:
                self._require_unmoved(txn, changed)
            return

        def run(txn: Writer) -> tuple[list[PlanItem], list[str]]:
            self._require_unmoved(txn, changed)
            found, skipped = self._unchanged(txn, items)
            if skipped and writes:
                raise Conflict(
                    "memories that were to be consolidated changed meanwhile",
                    hint="make the plan again",
                )
            for write in writes:
                write(txn)
            if found:
                trash.to_trash(txn, engine, [pair for _, pair in found], batch, now)
            return [item for item, _ in found], skipped

        done, skipped = engine.store.write(run)
        self.done.update(item.action for item in done)
        self.skipped += skipped
        self.batch = batch if done else None

    def _require_unmoved(self, txn: Reader | Writer, changed: Changed) -> None:
        if changed == "error" and moved(txn, self._plan.content_seq):
            raise Conflict(
                "memories changed since the plan was made",
                hint='make the plan again, or apply it with changed="skip"',
            )

    def _unchanged(
        self, txn: Reader | Writer, items: Iterable[PlanItem]
    ) -> tuple[list[tuple[PlanItem, tuple[int, Memory]]], list[str]]:
        """Those that are as they were planned, with row and memory; the ids of the others."""
        engine = self._engine
        wanted = list(items)
        by_id = lookups.rows_of(txn, sorted({require_id(item.id) for item in wanted}))
        live = engine.filters.get_set(txn, LIVE)
        known = engine.records.get_many(txn, sorted(live & BitMap(by_id.values())))
        found, skipped = [], []
        for item in wanted:
            row = by_id.get(require_id(item.id))
            memory = None if row is None else known.get(row)
            if row is None or memory is None or memory.version != item.version:
                skipped.append(item.id)
            else:
                found.append((item, (row, memory)))
        return found, skipped

    # --- what needs the lease -------------------------------------------------------------

    def lower(self, between: Callable[[], object] = lambda: None) -> None:
        """Chunks to pointers, earlier versions and evicted memories out of sight for good.

        ``between`` is called after each transaction.
        """
        self._between = between
        self._in_slices(self._plan.of("demote"), self._demote)
        self._in_slices(self._plan.of("evict"), self._evict, True, _HIDDEN_AT_ONCE)
        self._in_slices(self._plan.of("evict", "prune"), self._prune, False, _HIDDEN_AT_ONCE)

    def _in_slices(
        self,
        items: Sequence[PlanItem],
        step: Callable[..., tuple[int, list[str]]],
        current: bool | None = None,
        at_once: int = _AT_ONCE,
    ) -> None:
        chosen = [item for item in items if current is None or item.current == current]
        chosen.sort(key=lambda item: item.id)  # what was written together lies together
        for start in range(0, len(chosen), at_once):
            some = chosen[start : start + at_once]
            count, skipped = self._engine.store.write(partial(step, items=some))
            self.skipped += skipped
            self._between()
            if count:
                self.done[some[0].action] += count

    def _demote(self, txn: Writer, items: Sequence[PlanItem]) -> tuple[int, list[str]]:
        found, skipped = self._unchanged(txn, items)
        for _, (row, memory) in found:
            pointers.keep_pointer(txn, self._engine, row, memory)
        return len(found), skipped

    def _evict(self, txn: Writer, items: Sequence[PlanItem]) -> tuple[int, list[str]]:
        found, skipped = self._unchanged(txn, items)
        found = [(item, pair) for item, pair in found if not pair[1].pinned]
        if found:
            leaving.hide(txn, self._engine, [pair for _, pair in found])
        return len(found), skipped

    def _prune(self, txn: Writer, items: Sequence[PlanItem]) -> tuple[int, list[str]]:
        earlier, skipped = [], []
        for item in items:
            row = lookups.version_row(txn, require_id(item.id), item.version)
            if row is None:
                skipped.append(item.id)
            else:
                earlier.append(row)
        leaving.drop_versions(txn, earlier)
        return len(earlier), skipped


def moved(txn: Reader | Writer, content_seq: int) -> bool:
    """Whether any memory appeared, changed or went since; filing what is known does not count."""
    present = txn.state.content_seq
    if present == content_seq:
        return False
    if present < content_seq:
        return True
    change = changes_since(txn, content_seq, present)
    return change is None or bool(change.added) or bool(change.removed)
