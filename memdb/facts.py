"""The timeline of a profile fact: which value was true when.

One (namespace, subject, key) has values whose validity intervals do not overlap. A new value
closes the one before it, is closed by the one after it, and corrects the one that began at the
same instant. This file decides where a value goes and changes its neighbours inside the
transaction; it does not enter the new row itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from memdb import rows
from memdb.engine import Engine
from memdb.storage import lookups
from memdb.storage.store import Writer
from memdb.types import Memory, Status

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Placement(NamedTuple):
    """Where a new value goes: what to write, or the row that says the same already."""

    memory: Memory
    status: Status
    same_row: int | None
    enter: Callable[[int], None]  # call with the new row once it has one


def began(memory: Memory) -> datetime:
    """When a value became true; the beginning of time if that is not known."""
    return memory.valid_from or _BEGINNING


def fact_text(memory: Memory) -> str:
    """What is searched when a fact has no text of its own: "user address: 12 Elm St"."""
    name = (memory.key or "").replace("_", " ").replace(".", " ")
    value = memory.data if isinstance(memory.data, str) else _spoken(memory.data)
    return f"{memory.subject or ''} {name}: {value}".strip()


def _spoken(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_spoken(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_spoken(inner) for inner in value)
    return str(value)


def place(
    txn: Writer, engine: Engine, new: Memory, now: datetime, *, restoring: bool = False
) -> Placement:
    """Fit ``new`` into its fact's timeline, closing or retiring what it supersedes.

    A further value without a beginning begins now, unless it is being restored from an export,
    where an open beginning means what it says.
    """
    key = lookups.profile_key(txn, new.namespace, new.subject or "", new.key or "")
    timeline = lookups.timeline(txn, key)
    known = engine.records.get_many(txn, timeline)
    if new.valid_from is None and timeline and not restoring:
        new = new.replace(valid_from=now)
    before = [row for row in timeline if began(known[row]) <= began(new)]
    after = timeline[len(before) :]
    status: Status = "inserted"
    if before:
        row, previous = before[-1], known[before[-1]]
        covers = previous.valid_to is None or previous.valid_to > began(new)
        if covers and previous.data == new.data and previous.text == new.text:
            return Placement(previous, "duplicate", row, lambda _: None)
        if began(previous) == began(new):
            rows.retire(txn, engine, row, previous, now)
            before.pop()
            status = "replaced"
        elif covers:
            closed = previous.replace(valid_to=began(new))
            rows.rewrite(txn, engine, row, previous, closed)
            status = "superseded"
    if after:
        next_begins = began(known[after[0]])
        if new.valid_to is None or new.valid_to > next_begins:
            new = new.replace(valid_to=next_begins)

    def enter(row: int) -> None:
        lookups.set_timeline(txn, key, [*before, row, *after])

    return Placement(new, status, None, enter)


def reinsert(txn: Writer, engine: Engine, row: int, memory: Memory) -> None:
    """Put a restored value back into its timeline, in order of validity."""
    key = lookups.profile_key(txn, memory.namespace, memory.subject or "", memory.key or "")
    timeline = lookups.timeline(txn, key)
    if row in timeline:
        return
    known = engine.records.get_many(txn, timeline)
    place_at = sum(1 for other in timeline if began(known[other]) <= began(memory))
    lookups.set_timeline(txn, key, [*timeline[:place_at], row, *timeline[place_at:]])
