"""Who keeps a budget: admits writes, runs the owner's policies when they are due, and reports.

One a process and database. The holder of the maintenance lease makes room; others wait for it. What
ran last is kept under ``retention/last`` in ``meta`` for ``status``. Nothing runs until the owner
has set a budget or a policy. This file knows when; ``planning`` and ``applying`` know what.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from memdb.engine import Engine
from memdb.errors import BudgetExceeded, InvalidArgument
from memdb.pauses import short_turns
from memdb.retention import config, ladder, leaving, planning, policies, room, usage
from memdb.retention.applying import Applied, Applier
from memdb.retention.config import Wanted
from memdb.storage import tables
from memdb.storage.store import Writer

log = logging.getLogger("memdb")

LAST_KEY: Final = b"retention/last"
EVERY: Final = timedelta(days=1)
FULL_AT: Final = 0.95
"""Share of a budget at which room is made down to ``ladder.AIM`` of it: no sooner, so that memories
do not go one at a time."""

RESERVE_BYTES: Final = 1 << 18
"""What one short write may add to the store's file where nothing is free in it; of a small budget
a sixteenth."""

REFUSED_FOR: Final = timedelta(minutes=1)
"""How long a refusal holds where nothing changes but the hour: what may go depends on that too."""

_ROW_BYTES: Final = 8 << 10
_WAIT_S: Final = 10.0
_ROUNDS: Final = 6


Derive = Callable[[dict[str, Any]], Callable[[Writer], Any]]


def reserve(budget: int) -> int:
    """What is kept free for a write that brings next to nothing, or frees something."""
    return max(room.STEP_BYTES, min(RESERVE_BYTES, budget // 16))


def headroom(budget: int) -> int:
    """What the holder of the lease keeps free: room for a batch of ``rows_at_once`` of others."""
    return reserve(budget) + min(RESERVE_BYTES, budget // 16) + budget // 16


class Keeper:
    """The budget and the schedule of one engine; thread-safe.

    ``paused`` gives a block in which no background step runs; it is entered before all else here.
    """

    def __init__(
        self, engine: Engine, paused: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._engine = engine
        self._paused = paused
        self._guard = threading.RLock()
        self._running: int | None = None
        self._looked_at = (-1, -1, -1)
        self._next: datetime | None = None
        self._refused: tuple[tuple[object, ...], int, datetime] | None = None
        self._present: tuple[tuple[int, int], Wanted] | None = None

    # --- what is wanted -------------------------------------------------------------------

    def wanted(self, policy: config.PolicyLike = None, budget: int | None = None) -> Wanted:
        """What ``policy`` means, or the stored policies and the directory's file."""
        engine = self._engine
        with engine.store.read() as txn:
            stored = engine.stored_settings(txn)
        limit = stored.get("disk_budget") if budget is None else budget
        found = config.wanted(policy, stored.get("policies") or {}, engine.store.path, limit)
        if budget is None:
            return found
        rest = [one for one in found.policies if not isinstance(one, policies.Budget)]
        chain = policies.in_order([*rest, policies.Budget(budget)])
        return replace(found, policies=tuple(chain), disk_budget=budget, asked=True)

    def present(self) -> Wanted:
        """What is stored and in the directory's file; read again only when one of them changed."""
        engine = self._engine
        with engine.store.read() as txn:
            marks = (txn.state.layout_seq, _changed_at(engine.store.path / config.FILE))
        cached = self._present
        if cached is None or cached[0] != marks:
            cached = self._present = (marks, self.wanted())
        return cached[1]

    # --- admitting writes -----------------------------------------------------------------

    def admit(self, rows: int, content_bytes: int) -> None:
        """Called before a write, outside any transaction: makes room for it where a budget is set.

        Raises ``BudgetExceeded`` where even then it does not fit.
        """
        if self._running == threading.get_ident():
            return
        budget = self.present().disk_budget
        if budget is None:
            return
        more = reserve(budget) + rows * _ROW_BYTES + 3 * content_bytes
        engine = self._engine
        if room.fits(engine, budget, more):
            return
        if self._was_refused(budget, more):
            pass
        elif engine.store.lease.try_acquire():
            with self._paused():
                at_rest = self._looked_at == self._position()
                self.make_room(budget, more)
                if not room.fits(engine, budget, more):
                    self._refused = (self._refusal(budget), more, engine.now())
                    if at_rest:  # nor has the background anything to weigh again
                        self._looked_at = self._position()
        else:
            stop = time.monotonic() + _WAIT_S
            while not room.fits(engine, budget, more) and time.monotonic() < stop:
                time.sleep(0.02)  # the holder of the lease sees that it is full
        if not room.fits(engine, budget, more):
            raise BudgetExceeded(
                f"the write does not fit into the disk budget of {budget} bytes",
                hint="raise db.settings.disk_budget, unpin memories, write fewer at once, or end "
                "what still reads an earlier copy of the store",
            )

    def _refusal(self, budget: int) -> tuple[object, ...]:
        """What a refusal rests on: what is stored, what is wanted, and who reads earlier copies."""
        return budget, self.present(), self._position(), self._engine.store.others()

    def _was_refused(self, budget: int, more: int) -> bool:
        """Whether room for as much was looked for just before, in vain, and nothing has changed."""
        if self._refused is None:
            return False
        rested_on, least, at = self._refused
        young = timedelta(0) <= self._engine.now() - at < REFUSED_FOR
        return young and more >= least and rested_on == self._refusal(budget)

    def rows_at_once(self, wanted: int) -> int:
        """How many of ``wanted`` rows one transaction should bring, so that a budget admits it."""
        budget = self.present().disk_budget
        return wanted if budget is None else min(wanted, max(16, budget // 32 // _ROW_BYTES))

    # --- running --------------------------------------------------------------------------

    def step(self) -> bool:
        """What is due now, for the holder of the lease; whether anything was done."""
        engine = self._engine
        if leaving.step(engine):
            return True
        position = self._position()
        now = engine.now()
        if position == self._looked_at and (self._next is None or now < self._next):
            return False
        self._looked_at = position
        wanted = self.present()
        if not wanted.asked:
            return False
        if wanted.disk_budget is not None and self._is_full(wanted.disk_budget):
            if self.make_room(wanted.disk_budget, headroom(wanted.disk_budget)):
                return True
            self._looked_at = self._position()  # what is left may not go: until somebody writes
        return self._run_daily(wanted, now)

    def _position(self) -> tuple[int, int, int]:
        """What changes when anything is written."""
        engine = self._engine
        with engine.store.read() as txn:
            return txn.state.content_seq, txn.state.layout_seq, _pages(engine)

    def _is_full(self, budget: int) -> bool:
        engine = self._engine
        if not room.fits(engine, budget, headroom(budget)):
            return True
        with engine.store.read() as txn:
            return usage.measure(engine, txn).bound > FULL_AT * budget

    def due(self) -> bool:
        """Whether the daily run is due; ``step`` looks at all else when something was written."""
        return self._next is not None and self._engine.now() >= self._next

    def _run_daily(self, wanted: Wanted, now: datetime) -> bool:
        """Policies other than the budget, once a day."""
        if self._next is None:
            last = self.last()
            self._next = now if last is None else datetime.fromisoformat(last["daily"]) + EVERY
        if now < self._next:
            return False
        self._next = now + EVERY
        chain = [one for one in wanted.policies if not isinstance(one, policies.Budget)]
        applied = None
        with self._alone():
            if not all(isinstance(one, policies.Expired | policies.Pinned) for one in chain):
                # Else there is nothing to weigh every memory for: what expired is swept at once.
                wanted = replace(wanted, policies=tuple(chain), disk_budget=None)
                plan = planning.make(self._engine, wanted, now)
                applied = None if plan.is_empty else self.apply(plan)
            room.purge_trash(self._engine, now)
            self._keep_report("policies", now, [] if applied is None else [applied], 0)
        return applied is not None

    def make_room(self, budget: int, more: int) -> bool:
        """Bring the directory well under its budget, so that ``more`` can be written; whether any
        memory or step of the ladder was left to be taken for it."""
        engine = self._engine
        with self._guard, self._alone():
            now = engine.now()
            done: list[Applied] = []
            shortfall = 0
            room.finish(engine, budget=room.within(engine, budget))
            for _ in range(_ROUNDS):
                fits, bound = self._standing(budget, more)
                if not fits or bound > FULL_AT * budget:
                    # What loses nothing comes first, and may be enough.
                    room.squeeze(engine, room.within(engine, budget))
                    fits, bound = self._standing(budget, more)
                if fits and bound <= FULL_AT * budget:
                    break
                target = budget if fits else max(1, budget - more)
                target = min(target, int(bound / ladder.AIM) - usage.PAGE)
                wanted = self.wanted(None, target)
                chain = [_at_once(one) for one in wanted.policies]
                plan = planning.make(engine, replace(wanted, policies=tuple(chain)), now)
                shortfall = plan.shortfall
                if plan.is_empty:
                    break
                done.append(self.apply(plan))
            last = self.last() or {}
            if done or (shortfall and shortfall != last.get("shortfall")):
                self._keep_report("budget", now, done, shortfall)
                if shortfall:
                    log.warning("retention: the disk budget is %d bytes too small", shortfall)
            return bool(done)

    def _standing(self, budget: int, more: int) -> tuple[bool, int]:
        """Whether ``more`` can be written, and what must not exceed the budget."""
        engine = self._engine
        fits = room.fits(engine, budget, more)
        if not fits:  # free pages may be all that is in the way, or a reader's old copy
            room.finish(engine, budget=room.within(engine, budget), dead_worth=1)
            fits = room.fits(engine, budget, more) or not room.let_go(engine)
        with engine.store.read() as txn:
            return fits, usage.measure(engine, txn).bound

    def apply(
        self, plan: planning.Plan, changed: Any = "skip", derive: Derive | None = None
    ) -> Applied:
        """Apply a plan whole. The caller holds the lease, and keeps maintenance from running."""
        engine = self._engine
        with self._alone():
            before = sum(usage.disk_bytes(engine.store.path).values())
            limit = self.present().disk_budget
            if limit is not None:
                limit = room.within(engine, limit)
            applier = Applier(engine, plan)
            applier.forget(changed, derive or _underivable)
            applier.lower(lambda: room.stay_under(engine, limit))
            for step in plan.steps:
                room.take(engine, step, plan.now, limit)
            if plan.of("archive"):
                applier.done["archive"] = len(plan.of("archive"))
                room.freeze(engine, limit)
            if applier.done or plan.steps:
                room.finish(engine, budget=limit)
            after = sum(usage.disk_bytes(engine.store.path).values())
        return Applied(
            batch=applier.batch,
            done=dict(applier.done),
            skipped=tuple(applier.skipped),
            bytes_before=before,
            bytes_after=after,
        )

    def _alone(self) -> _Running:
        return _Running(self)

    # --- the report -----------------------------------------------------------------------

    def _keep_report(self, why: str, now: datetime, done: list[Applied], shortfall: int) -> None:
        last = self.last() or {}
        totals: dict[str, int] = {}
        for one in done:
            for action, count in one.done.items():
                totals[action] = totals.get(action, 0) + count
        report = {
            "at": now.isoformat(),
            "why": why,
            "daily": now.isoformat() if why == "policies" else last.get("daily", now.isoformat()),
            "done": totals,
            "skipped": sum(len(one.skipped) for one in done),
            "batches": [one.batch for one in done if one.batch is not None],
            "bytes_before": done[0].bytes_before if done else None,
            "bytes_after": done[-1].bytes_after if done else None,
            "shortfall": shortfall,
        }
        payload = msgspec.msgpack.encode(report)

        def keep(txn: Writer) -> None:
            txn.put(tables.META, LAST_KEY, payload)

        self._engine.store.write(keep)

    def last(self) -> dict[str, Any] | None:
        """The report of the last run that was due, or None."""
        with self._engine.store.read() as txn:
            payload = txn.get(tables.META, LAST_KEY)
        if payload is None:
            return None
        found: dict[str, Any] = msgspec.msgpack.decode(payload)
        return found


class _Running:
    """While it is entered, this thread's own writes are admitted unasked, and readers of this
    process get their turn soon."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._before: int | None = None
        self._turns = ExitStack()

    def __enter__(self) -> None:
        self._keeper._guard.acquire()
        self._before, self._keeper._running = self._keeper._running, threading.get_ident()
        self._turns.enter_context(short_turns())

    def __exit__(self, *error: object) -> None:
        self._turns.close()
        self._keeper._running = self._before
        self._keeper._guard.release()


def _pages(engine: Engine) -> int:
    """How long the store's file is."""
    return engine.store.info()["last_pgno"]


def _changed_at(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _at_once(policy: policies.Policy) -> policies.Policy:
    if isinstance(policy, policies.Budget):
        return replace(policy, trigger=0.0)
    return policy


def _underivable(made: dict[str, Any]) -> Any:
    raise InvalidArgument("a consolidation can only be applied through db.retention.apply")
