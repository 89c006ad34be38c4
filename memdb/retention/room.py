"""Making room: the steps of a budget that concern bytes and not memories, and the whole of a run.

For a budget B, with files F, the store's live pages L and its file D, three things hold:

    F + 2 L <= B          after a run: so a compacting copy always finds room
    F + D + L <= B        before a write is admitted: so one does now
    F + D (+ copies) <= B always: what ``du`` says

D grows only by what is written between two looks, and the L that is kept free is more than that.
Lease holder only. Nothing here chooses memories: a plan does.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from memdb import removal, settings, space_convert, trash
from memdb.engine import Engine
from memdb.retention import cleaning, leaving, usage
from memdb.retention.planning import PlanStep
from memdb.storage import packing, postings, spaces, tables
from memdb.storage.store import Writer

_USERS_END_S: Final = 2.0
STEP_BYTES: Final = 192 << 10
"""What the store's file may grow by in one transaction that frees something, as LMDB writes every
page it changes anew, and what a copy takes beside its pages."""
FILED_AT: Final = 64
"""Fresh rows that take enough for being filed to make room."""
_FILED_AT_ONCE: Final = 32
DEAD_WORTH: Final = 1 << 18
"""Bytes of free pages that are worth a copy, at least; and at least a tenth of the live ones."""


def take(engine: Engine, step: PlanStep, now: datetime, budget: int | None = None) -> None:
    """One step of a plan. Each step writes before it frees: a ``budget`` is looked at between the
    transactions of one too.
    """
    if step.what == "trash":
        purge_trash(engine, now, step.bytes, budget)
    elif step.what == "encode":
        encode(engine, budget)
    elif step.what == "cold":
        freeze(engine, budget)
    elif step.what == "space" and step.space is not None and step.profile is not None:
        convert(engine, step.space, step.profile, budget)


def squeeze(engine: Engine, budget: int | None = None) -> bool:
    """All that makes the directory smaller and loses nothing; whether it did anything.

    A plan weighs memories as they lie. What was written since the last copy takes three times what
    it will in the next, so a plan made before that would let three times as many go.
    """
    with engine.store.read() as txn:
        used = usage.measure(engine, txn)
    if used.encodable:
        encode(engine, budget)
    if used.freezable:
        freeze(engine, budget)
    filed = _file(engine, budget)
    with engine.store.read() as txn:
        due = packing.is_due(txn)
    if due:
        _copy(engine, budget)
    return bool(used.encodable or used.freezable or filed or due)


def _file(engine: Engine, budget: int | None) -> bool:
    """Enter fresh rows where they stay, a few a transaction, if there are enough for it to tell."""
    with engine.store.read() as txn:
        terms = txn.count(tables.FRESH_FORWARD) >= FILED_AT
        values = engine.filters.fresh_count(txn) >= FILED_AT
    # It makes nothing smaller by itself, and rewrites more than most steps.
    least = 0 if budget is None else 2 * margin(budget)
    fold_terms = partial(postings.fold, at_least=1)
    while terms and stay_under(engine, budget, least) and engine.store.write(fold_terms):
        pass
    fold_values = partial(engine.filters.fold, at_most=_FILED_AT_ONCE)
    while values and stay_under(engine, budget, least) and engine.store.write(fold_values):
        pass
    return terms or values


def freeze(engine: Engine, budget: int | None = None) -> int:
    """Move every full group of records into a cold block; returns how many moved."""
    with engine.store.read() as txn:
        groups = usage.freezable(engine, txn)
    moved = 0
    for rows in groups:
        moved += engine.store.write(partial(engine.records.freeze, rows=rows))
        stay_under(engine, budget)
    return moved


def encode(engine: Engine, budget: int | None = None) -> None:
    """Move fresh vectors into files, where there are enough to train on."""
    with engine.store.read() as txn:
        known = spaces.spaces(txn)
        least = {one.number: usage.worth_encoding(engine, txn, one) for one in known}
    for record in known:
        while engine.vectors(record).encode_step(least[record.number]):
            stay_under(engine, budget)


def convert(engine: Engine, name: str, profile: str, budget: int | None = None) -> None:
    """Bring a space to a smaller profile, now."""
    with engine.store.read() as txn:
        record = spaces.find_space(txn, name)
    if record is None:
        return
    engine.store.write(lambda txn: space_convert.aim(txn, engine.filters, record, profile))
    space = engine.vectors(record)
    while space.convert_step():
        stay_under(engine, budget)


def purge_trash(engine: Engine, now: datetime, at_least: int = 0, budget: int | None = None) -> int:
    """Remove for good what is in the trash: what is over its seven days, and of the rest the oldest
    batches until ``at_least`` bytes are free. Returns how many memories.
    """
    oldest = now - timedelta(days=settings.TRASH_DAYS)
    removed = freed = 0
    with engine.store.read() as txn:
        batches = trash.batches(txn)
    for name, at, rows in batches:
        if at > oldest and freed >= at_least:
            break
        freed += usage.TRASHED_BYTES * len(rows)

        def purge(txn: Writer, name: str = name) -> int:
            found, samples = trash.held(txn, engine, name)
            memories = list(engine.records.outlines(txn, found).items())
            leaving.hide(txn, engine, memories)
            if samples:
                removal.remove_samples(txn, samples)
            trash.drop(txn, name)
            return len(memories)

        removed += engine.store.write(purge)
        stay_under(engine, budget)
    return removed


def finish(engine: Engine, *, budget: int | None = None, dead_worth: int = DEAD_WORTH) -> None:
    """Give back what is invisible: rows that leave, holes in files, the store's free pages.

    Removing makes the store's file grow before it shrinks, so under a ``budget`` it is copied as
    soon as a copy would else not fit any more.
    """
    while leaving.step(engine):
        stay_under(engine, budget)
    if dead_bytes(engine) >= dead_worth:
        _copy(engine, budget)
    if cleaning.clean(engine, partial(_may_write, engine, budget)):
        squeeze(engine, budget)  # what moved is as large as what was just written
    if dead_bytes(engine) >= dead_worth:
        _copy(engine, budget)
    let_go(engine)
    engine.blobs.sweep(engine.store)


def margin(budget: int) -> int:
    """Room that is kept for one step."""
    return max(budget // 16, STEP_BYTES)


def within(engine: Engine, budget: int) -> int:
    """What ``du`` need not exceed while room is made: the budget, where a copy has room within it.

    Where a step wrote more than its margin, what there is and a copy. Where far more is missing, a
    budget was set that is smaller than what there is: nothing holds until what is there was
    written anew, and copied.
    """
    with engine.store.read() as txn:
        live = usage.live_bytes(txn)
    used = sum(usage.disk_bytes(engine.store.path).values())
    missing = used + live - budget
    return budget + max(0, missing) + (used if missing > margin(budget) else 0)


def stay_under(engine: Engine, budget: int | None, least: int = 0) -> bool:
    """Copy the store where that is about to become impossible within ``budget``: where less than
    ``least`` bytes, or the margin, would be left. Whether so much is left then."""
    if budget is None:
        return True
    least = max(least, margin(budget))
    if fits(engine, budget, least):
        return True
    # Near the end any free page is worth a copy: one more step, and none has room any more.
    worth = None if fits(engine, budget, STEP_BYTES) else STEP_BYTES // 4
    if dead_bytes(engine, worth):
        _copy(engine, budget, packed=False)
    let_go(engine)
    return fits(engine, budget, least)


def _may_write(engine: Engine, budget: int | None) -> bool:
    """Whether there is room for one more step that only writes, and for the first of those that
    make small what it wrote: these are taken where there would else be none."""
    if budget is None:
        return True
    least = 2 * margin(budget)
    if stay_under(engine, budget, least):
        return True
    # Only where that gains enough for many steps, or it would be done for each of them.
    return squeeze(engine, budget) and fits(engine, budget, 2 * least)


def _copy(engine: Engine, budget: int | None, *, packed: bool = True) -> None:
    """Copy the store, where a copy has room beside it and beside what somebody still reads."""
    let_go(engine)
    if budget is None or fits(engine, budget, 0):
        engine.store.compact(dense=True, packed=packed)
        let_go(engine)


def let_go(engine: Engine) -> bool:
    """Remove superseded copies of the store, for a moment waiting for those who read there.

    False where somebody still does: their bytes are not to be had by evicting more.
    """
    stop = time.monotonic() + _USERS_END_S
    while True:
        engine.store.reap()
        if not engine.store.others():
            return True
        if time.monotonic() > stop:
            return False
        time.sleep(0.002)


def dead_bytes(engine: Engine, worth: int | None = None) -> int:
    """What a compacting copy would free; 0 where it is not worth one, which so many bytes are, or a
    tenth of what is live."""
    with engine.store.read() as txn:
        live = usage.live_bytes(txn)
        dead = postings.gone_bytes(txn)
    dead += usage.disk_bytes(engine.store.path).get("kv", 0) - live
    return dead if dead * 10 >= live or (worth is not None and dead >= worth) else 0


def fits(engine: Engine, budget: int, more: int) -> bool:
    """Whether ``more`` bytes may be written such that a compacting copy still finds room."""
    with engine.store.read() as txn:
        live = usage.live_bytes(txn)
    return sum(usage.disk_bytes(engine.store.path).values()) + live + more <= budget
