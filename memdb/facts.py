"""The timeline of a profile fact: which value was true when.

One (namespace, subject, key) has values whose validity intervals do not overlap. A new value
closes the one before it, is closed by the one after it, and corrects the one that began at the
same instant. This file decides where a value goes and changes its neighbours inside the
transaction; it does not enter the new row itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from memdb import rows
from memdb.engine import Engine
from memdb.errors import Conflict, InvalidArgument
from memdb.storage import lookups
from memdb.storage.store import Writer
from memdb.types import Memory, Status

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


class Placement(NamedTuple):
    """Where a new value goes: what to write, and what stands in its place already."""

    memory: Memory
    status: Status
    same_row: int | None  # the row that says the same already: nothing is to be written
    corrects: tuple[int, Memory] | None  # the value that began at the same instant
    resumes: tuple[int, Memory] | None  # (row, rest): a value that goes on after this one ends
    enter: Callable[[Sequence[int]], None]  # call with the new row, and that of the rest


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


def ended(memory: Memory) -> datetime:
    """When a value stopped being true; the end of time if it has not."""
    return memory.valid_to or _END


def expired(memory: Memory, now: datetime) -> bool:
    """Whether a value has expired: nobody is to see it."""
    return memory.expires_at is not None and memory.expires_at <= now


def place(
    txn: Writer, engine: Engine, new: Memory, now: datetime, *, restoring: bool = False
) -> Placement:
    """Fit ``new`` into its fact's timeline, closing what it supersedes.

    A further value without a beginning begins now, unless it is being restored from an export,
    where an open beginning means what it says. A value that ends before the one it interrupts
    does leaves a rest, which the caller enters as a memory of its own: who stayed at a hotel in
    May lives at home in June.
    """
    key = _key(txn, new)
    stored = lookups.timeline(txn, key)
    known = engine.records.get_many(txn, stored)
    # What has expired closes nothing and is not the same as anything; the sweep will take it.
    timeline = [row for row in stored if not expired(known[row], now)]
    if new.valid_from is None and timeline and not restoring:
        if ended(new) <= now:
            raise InvalidArgument(
                "valid_from is needed beside a valid_to in the past", field="valid_from"
            )
        new = new.replace(valid_from=now)
    before = [row for row in timeline if began(known[row]) <= began(new)]
    after = timeline[len(before) :]
    if after and ended(new) > began(known[after[0]]):
        new = new.replace(valid_to=began(known[after[0]]))
    status: Status = "inserted"
    corrects = resumes = None
    if before:
        row, previous = before[-1], known[before[-1]]
        covers = ended(previous) > began(new)
        same = previous.data == new.data and previous.text == new.text
        if covers and same and ended(previous) >= ended(new):
            return Placement(previous, "duplicate", row, None, None, lambda _: None)
        if began(previous) == began(new):
            corrects, status = (row, previous), "replaced"
            before.pop()
        elif covers:
            if ended(previous) > ended(new):
                rest = previous.replace(valid_from=new.valid_to, external_id=None, position=None)
                resumes = row, rest
            closed = previous.replace(valid_to=began(new))
            rows.rewrite(txn, engine, row, previous, closed)
            status = "superseded"

    def enter(entered: Sequence[int]) -> None:
        lookups.set_timeline(txn, key, [*before, *entered, *after])

    return Placement(new, status, None, corrects, resumes, enter)


def take_out(txn: Writer, row: int, memory: Memory) -> None:
    """Remove a value from its timeline; its neighbours stay as they are."""
    if memory.key is not None:
        key = _key(txn, memory)
        lookups.set_timeline(txn, key, [one for one in lookups.timeline(txn, key) if one != row])


def refit(txn: Writer, engine: Engine, row: int, old: Memory, new: Memory) -> Memory:
    """Move a value whose validity is changed; returns it as it fits between its neighbours.

    The value before ends where this one begins, if it ended there until now or would overlap; the
    value after stays. Raises ``Conflict`` when another value begins at the same instant or would
    be cut in two.
    """
    if new.key is None or (new.valid_from, new.valid_to) == (old.valid_from, old.valid_to):
        return new
    key = _key(txn, new)
    others = [one for one in lookups.timeline(txn, key) if one != row]
    known = engine.records.get_many(txn, others)
    if any(began(known[one]) == began(new) for one in others):
        raise Conflict("another value of the fact begins then", hint="forget or update that one")
    before = [one for one in others if began(known[one]) < began(new)]
    after = others[len(before) :]
    if after and ended(new) > began(known[after[0]]):
        new = new.replace(valid_to=began(known[after[0]]))
    if before:
        previous = known[before[-1]]
        overlaps = ended(previous) > began(new)
        if overlaps and ended(previous) > ended(new):
            raise Conflict(
                "another value of the fact is true before and after", hint="end it first"
            )
        if overlaps or (previous.valid_to == old.valid_from and began(new) > began(old)):
            closed = previous.replace(valid_to=new.valid_from)
            rows.rewrite(txn, engine, before[-1], previous, closed)
    lookups.set_timeline(txn, key, [*before, row, *after])
    return new


def reinsert(txn: Writer, engine: Engine, row: int, memory: Memory) -> None:
    """Put a restored value back into its timeline, where no other value has come to be true.

    It yields to what was written since: it keeps the first part of its validity that is free.
    Raises ``Conflict`` when none is.
    """
    key = _key(txn, memory)
    timeline = lookups.timeline(txn, key)
    known = engine.records.get_many(txn, timeline)
    start, stop = began(memory), ended(memory)
    place_at = 0
    for other in timeline:
        if began(known[other]) > start:
            stop = min(stop, began(known[other]))
            break
        start = max(start, ended(known[other]))
        place_at += 1
    if start >= stop:
        raise Conflict("another value of the fact has been set meanwhile", hint="forget that one")
    fitted = memory.replace(
        valid_from=memory.valid_from if start == began(memory) else start,
        valid_to=memory.valid_to if stop == ended(memory) else stop,
    )
    if fitted != memory:
        rows.rewrite(txn, engine, row, memory, fitted)
    lookups.set_timeline(txn, key, [*timeline[:place_at], row, *timeline[place_at:]])


def _key(txn: Writer, memory: Memory) -> bytes:
    return lookups.profile_key(txn, memory.namespace, memory.subject or "", memory.key or "")
