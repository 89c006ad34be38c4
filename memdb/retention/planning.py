"""Plans: what would become of each memory and why, before anything does.

A plan is plain data, the same for the same content, policies and moment, and reads back from its
JSON. It is bound to the ``content_seq`` it was made at. This file makes plans; it changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.engine import Engine
from memdb.errors import InvalidArgument
from memdb.pauses import collection_paused
from memdb.retention import ladder, policies, usage, valuing
from memdb.retention.config import Wanted
from memdb.retention.policies import UNDOABLE, Candidate, Decision, Situation
from memdb.storage import spaces
from memdb.storage.store import Reader
from memdb.types import Memory


class PlanItem(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one memory. ``value`` = ``weight`` x ``kept``: V, w, R.

    ``final`` cannot be undone. ``linked`` is the id of the memory that stands for it from then on.
    ``current`` is False for an earlier version.
    """

    id: str
    version: int
    kind: str
    namespace: str
    action: str
    rule: str
    level_from: int
    level_to: int
    value: float
    weight: float
    kept: float
    bytes: int
    final: bool
    current: bool = True
    subject: str | None = None
    key: str | None = None
    linked: str | None = None


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the ladder that concerns the whole store or a space. ``bytes``: what it frees.

    ``what``: "trash" (removed for good, the oldest first), "encode" (fresh vectors into files),
    "cold" (texts into blocks; nothing is lost) or "space" (vectors to a smaller ``profile``).
    """

    what: str
    level: int
    bytes: int
    final: bool
    space: str | None = None
    profile: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What ``db.retention.apply`` would do. ``items`` are the memories a policy matched.

    ``totals``: memories looked at, and memories and bytes by action and by rule. ``profile_keys``:
    the facts that would go, as (namespace, subject, key). ``bytes_before`` and ``bytes_after`` are
    those that ``disk_budget`` limits: files and twice the store; ``bytes_after`` is an estimate.
    ``shortfall``: bytes over the budget that only pinned and profile memories hold.
    """

    now: datetime
    content_seq: int
    items: tuple[PlanItem, ...]
    steps: tuple[PlanStep, ...]
    totals: dict[str, Any]
    profile_keys: tuple[tuple[str, str, str], ...]
    disk_budget: int | None
    bytes_before: int
    bytes_after: int
    shortfall: int = 0
    derived: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; ``from_dict`` reads it back."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """``InvalidArgument`` when it is not what ``to_dict`` gave."""
        try:
            return msgspec.convert(dict(values), cls)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise InvalidArgument("that is not a retention plan", field="plan") from error

    def of(self, *actions: str) -> list[PlanItem]:
        """The items with one of these actions."""
        return [item for item in self.items if item.action in actions]

    @property
    def is_empty(self) -> bool:
        """Whether applying it would change nothing."""
        return not self.steps and all(item.action == "keep" for item in self.items)


def make(engine: Engine, wanted: Wanted, now: datetime) -> Plan:
    """The plan for this moment; see ``Plan``."""
    # All memories at once are objects that the collector would walk again and again, and whoever
    # reads in this process would wait for it.
    with collection_paused(), engine.store.read() as txn:
        found = plan_in(engine, txn, wanted, now)
    return found


def plan_in(engine: Engine, txn: Reader, wanted: Wanted, now: datetime) -> Plan:
    used = usage.measure(engine, txn)
    valued = valuing.candidates(
        engine,
        txn,
        now,
        wanted.options,
        live_bytes=used.live,
        vector_bytes=usage.vector_bytes(txn),
    )
    used = usage.with_values(engine, txn, used, valued.candidates)
    situation = Situation(now, used, vectors=lambda rows: _vectors(engine, txn, rows))
    decided = policies.decide(wanted.policies, valued.candidates, situation)
    by_row = {one.row: one for one in valued.candidates}
    items = tuple(_item(by_row[row], decided[row]) for row in sorted(decided))
    steps = tuple(
        PlanStep(
            what=step.what,
            level=step.level,
            bytes=step.frees,
            final=step.what not in ("cold", "encode"),
            space=step.space,
            profile=step.profile,
        )
        for step in situation.steps
    )
    freed = sum(item.bytes for item in items if item.action not in UNDOABLE)
    freed += sum(step.bytes for step in steps)
    going = [one.memory for row, one in by_row.items() if _goes(decided.get(row))]
    return Plan(
        now=now,
        content_seq=txn.state.content_seq,
        items=items,
        steps=steps,
        totals=_totals(items, len(by_row)),
        profile_keys=tuple(_keys(going)),
        disk_budget=wanted.disk_budget,
        bytes_before=used.bound,
        bytes_after=max(0, used.bound - freed),
        shortfall=situation.shortfall,
        derived=tuple(situation.derived),
    )


def _vectors(engine: Engine, txn: Reader, rows: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    for space in spaces.answering(txn):
        runs = set(spaces.allocation(txn, space.number).runs)
        mine = [row for row in rows if row >> 16 in runs]
        if mine:
            found.update(engine.vectors(space).fetch(txn, mine))
    return found


def _item(one: Candidate, decision: Decision) -> PlanItem:
    memory = one.memory
    gone = decision.action in ("forget", "prune", "evict", "consolidate")
    if gone:
        level, freed = ladder.GONE, one.size
    else:
        level = one.level if decision.level is None else max(one.level, decision.level)
        share = ladder.POINTER_FREES if level == ladder.POINTER != one.level else 0.0
        freed = int(share * one.size)
    return PlanItem(
        id=memory.id,
        version=memory.version,
        kind=memory.kind,
        namespace=memory.namespace,
        action=decision.action,
        rule=decision.rule,
        level_from=one.level,
        level_to=level,
        value=round(one.value, 6),
        weight=round(one.weight, 6),
        kept=round(one.kept, 6),
        bytes=freed,
        final=decision.action in ("prune", "evict", "demote"),
        current=one.current,
        subject=memory.subject,
        key=memory.key,
        linked=decision.linked,
    )


def _goes(decision: Decision | None) -> bool:
    return decision is not None and decision.action in ("forget", "prune", "evict", "consolidate")


def _keys(memories: Sequence[Memory]) -> list[tuple[str, str, str]]:
    return sorted(
        {
            (memory.namespace, memory.subject or "", memory.key)
            for memory in memories
            if memory.key is not None and memory.retired_at is None
        }
    )


def _totals(items: Sequence[PlanItem], looked_at: int) -> dict[str, Any]:
    def grouped(name: str) -> dict[str, dict[str, int]]:
        count = Counter(getattr(item, name) for item in items)
        size: Counter[str] = Counter()
        for item in items:
            size[getattr(item, name)] += item.bytes
        return {label: {"memories": count[label], "bytes": size[label]} for label in sorted(count)}

    return {"memories": looked_at, "actions": grouped("action"), "rules": grouped("rule")}
