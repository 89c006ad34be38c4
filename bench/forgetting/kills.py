"""``python -m bench forgetting kills``: retention killed at every point of it.

Each operation runs in a process of its own on a copy of one small database and is killed with
SIGKILL at the n-th thing it does to the disk, before or after it (``bench/dying.py``): for all n
where ``--kills`` allows as many, spread over all of it otherwise; and at random instants. What is
left must open and pass ``check`` as it is; each memory must be there whole or not at all, what is
pinned or a fact always; what goes in one step must have gone together or not at all. Then the
background work finishes what was begun, and the operation is done again and must succeed.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import dying, report
from memdb.retention import Decay, leaving

_DIM = 16
_EVENTS = 72
_FORGOTTEN = 4  # memories of each batch that is in the trash from the beginning
_WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "lo")]


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.moment = datetime(2025, 6, 1, 8, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@dataclass
class Kills:
    """What the rounds of one operation counted; a healthy run has no messages."""

    operation: str
    points: int = 0
    kills: int = 0
    at_random: int = 0
    survived: int = 0
    begun: int = 0
    batches: set[int] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.messages


# --- the database ---------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield " ".join(rng.choice(_WORDS, 14)) + f" number{number}"


def plant(root: Path, at: int = 0, begin: Callable[[], None] = lambda: None) -> int:
    """A small database with something for every step of retention; tells what is in it."""
    dying.small_steps()
    begin()
    rng = np.random.default_rng(3)
    texts = _texts(rng)
    clock = Clock()
    notes = root / "notes"
    notes.mkdir()
    for name in ("one", "two"):
        parts = [f"# Part {n}\n\n{' '.join(next(texts) for _ in range(6))}\n" for n in range(4)]
        (notes / f"{name}.md").write_text("\n".join(parts))
    with memdb.open(root / "db", embedder="none", clock=clock) as db:
        given = [
            {
                "text": next(texts),
                "kind": "event",
                "stream": f"talk{n % 3}",
                "external_id": f"e{n}",
                "tags": [f"t{n % 5}"],
                "event_time": clock.moment - timedelta(days=200 - n),
                "pinned": n % 12 == 0,
                "vector": rng.standard_normal(_DIM).astype(np.float32),
            }
            for n in range(_EVENTS)
        ]
        ids = [one.id for one in db.remember_many(given)]
        for n in (1, 2, 3):
            ids.append(db.remember(str(given[n]["text"]), kind="note", dedup="off").id)
            db.update(ids[n + 3], text=next(texts))
        for n in range(4):
            db.profile.set(f"fact{n}", next(texts), subject="user", valid_from="2024-01-01")
            db.profile.set(f"fact{n}", next(texts), subject="user", valid_from="2025-01-01")
        db.files.sync(notes)
        for n in range(6):
            db.history.append("pulse", data={"bpm": 60 + n}, event_time=clock.moment, stream="w")
        ids.append(db.remember("a long text " + rng.bytes(40_000).hex(), external_id="long").id)
        for some in (ids[40 : 40 + _FORGOTTEN], ids[44 : 44 + _FORGOTTEN]):
            db.forget(some)
        clock.moment += timedelta(days=1)
        db._maintenance.drain()
        facts = {db.profile.versions(f"fact{n}", subject="user")[-1].id for n in range(4)}
        known = [_known(memory, memory.pinned or memory.id in facts) for memory in db.iter()]
    (root / "known.json").write_text(json.dumps(known))
    return 0


def _known(memory: memdb.Memory, protected: bool) -> dict[str, Any]:
    return {
        "id": memory.id,
        "text": memory.text,
        "kind": memory.kind,
        "external_id": memory.external_id,
        "protected": protected,
    }


# --- the operations -------------------------------------------------------------------------

_POLICY = {"duplicates": {"exact": True}, "superseded": {"keep_versions": 0}}


def _apply(db: memdb.Database) -> None:
    bound = db.retention.status()["bytes"]["bound"]
    try:
        plan = db.retention.plan(_POLICY, disk_budget=int(bound * 0.75))
    except memdb.BudgetExceeded:  # the second time: only what is protected is left
        plan = db.retention.plan(_POLICY)
    db.retention.apply(plan, changed="skip")


def _demote(db: memdb.Database) -> None:
    plan = db.retention.plan(Decay(2.0)).to_dict()
    chunks = [
        {**item, "action": "demote", "level_to": 4, "final": True}
        for item in plan["items"]
        if item["kind"] == "chunk"
    ]
    step = {"level": 0, "bytes": 0, "final": False}
    (space,) = db.spaces.list()
    steps = [
        {**step, "what": "encode"},
        {**step, "what": "cold"},
        {**step, "what": "space", "space": space.name, "profile": "compact"},
    ]
    db.retention.apply({**plan, "items": chunks, "steps": steps}, changed="skip")


def _budget(db: memdb.Database) -> None:
    """A budget that is full, and writes that make room under it."""
    rng = np.random.default_rng(5)
    texts = _texts(rng)
    bound = db.retention.status()["bytes"]["bound"]
    db.settings.disk_budget = int(bound * 0.8)
    try:
        for _ in range(3):
            db.remember_many([{"text": f"later {next(texts)}", "kind": "event"} for _ in range(6)])
    except memdb.BudgetExceeded:
        pass  # what is protected leaves no room for more: a refusal that must lose nothing
    db._maintenance.drain()


def _compact(db: memdb.Database) -> None:
    db.compact()


def _erase(db: memdb.Database) -> None:
    db.erase(where={"tags": {"$in": ["t1", "t3"]}, "pinned": False})
    for receipt in db.receipts():
        receipt.wait(60)


OPERATIONS: dict[str, Callable[[memdb.Database], None]] = {
    "apply": _apply,
    "demote": _demote,
    "budget": _budget,
    "compact": _compact,
    "erase": _erase,
}


class Victim:
    """One operation, in a process that may be killed in it; it can be sent to one."""

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def __call__(self, root: Path, at: int, begin: Callable[[], None]) -> int:
        dying.small_steps()
        with memdb.open(root / "db", embedder="none", clock=Clock()) as db:
            db.count()
            counted = dying.count_or_die(db, at)
            begin()
            OPERATIONS[self.operation](db)
            return counted()


# --- the rounds -----------------------------------------------------------------------------


def measure(
    root: Path, kills: int, seed: int = 1, operations: list[str] | None = None
) -> list[Kills]:
    """Kill each operation ``kills`` times: three quarters at numbered points, the others at random
    instants."""
    template = root / "template"
    template.mkdir(parents=True)
    empty = root / "empty"
    empty.mkdir()
    template.rmdir()
    dying.run(plant, empty, template, 0)
    known = json.loads((template / "known.json").read_text())
    return [
        _rounds(root, template, known, name, kills, random.Random(f"{seed} {name}"))
        for name in operations or OPERATIONS
    ]


def _rounds(
    root: Path,
    template: Path,
    known: list[dict[str, Any]],
    name: str,
    kills: int,
    rng: random.Random,
) -> Kills:
    outcome = Kills(name)
    victim = Victim(name)
    folder = root / name
    started = time.monotonic()
    outcome.points = dying.run(victim, template, folder, 0) or 0
    took_s = time.monotonic() - started
    _judge(folder, known, name, outcome, "not killed")
    shutil.rmtree(folder)
    numbered = min(outcome.points, kills - kills // 4)
    step = outcome.points / numbered
    offset = rng.random() * step
    points = sorted({1 + int(offset + n * step) % outcome.points for n in range(numbered)})
    for done, point in enumerate(points):
        report.progress(f"{name}: {done} of {kills} kills")
        killed = dying.run(victim, template, folder, point) is None
        outcome.kills += killed
        outcome.survived += not killed
        _judge(folder, known, name, outcome, f"killed at {point} of {outcome.points}")
        shutil.rmtree(folder)
    for done in range(kills - numbered):
        report.progress(f"{name}: {numbered + done} of {kills} kills")
        after_s = rng.random() * took_s
        killed = dying.run(victim, template, folder, 0, after_s) is None
        outcome.at_random += killed
        outcome.survived += not killed
        _judge(folder, known, name, outcome, f"killed after {after_s * 1e3:.1f} ms")
        shutil.rmtree(folder)
    return outcome


def _judge(folder: Path, known: list[dict[str, Any]], name: str, outcome: Kills, when: str) -> None:
    """What is left, as it is; then once the background work has been at it; then done again."""

    def tell(problem: object) -> None:
        outcome.messages.append(f"{name}, {when}: {problem}")

    try:
        db = memdb.open(folder / "db", embedder="none", clock=Clock())
    except memdb.MemdbError as error:
        tell(f"does not open: {error}")
        return
    with db:
        try:
            with db._maintenance.paused():
                left = _looked_at(db, known, tell)
                batches = _batches(db)
            if not outcome.batches:  # of the one that is not killed
                outcome.batches = {_FORGOTTEN, *batches}
            if name != "erase" and not outcome.batches.issuperset(batches):
                tell(f"batches of the trash in parts: {batches}")
            outcome.begun += left < len(known)
            db._maintenance.drain()
            for receipt in db.receipts():
                receipt.wait(60)
            if _looked_at(db, known, tell) > left:
                tell("a memory came back")
            _finished(db, tell)
            OPERATIONS[name](db)
            db._maintenance.drain()
            _looked_at(db, known, tell)
            _finished(db, tell)
        except (memdb.MemdbError, AssertionError) as error:
            tell(f"{type(error).__name__}: {error}, {db._maintenance.last_error}")


def _looked_at(
    db: memdb.Database, known: list[dict[str, Any]], tell: Callable[[object], None]
) -> int:
    """How many of the known memories are there; ``tell`` what is wrong."""
    checked = db.check()
    if not checked["ok"]:
        tell(f"check: {checked['problems'][:3]}")
    shown = {memory.id: memory for memory in db.iter()}
    if len(shown) != db.count():
        tell(f"{db.count()} are counted, {len(shown)} listed")
    here = 0
    for one in known:
        memory = db.get(one["id"])
        listed = shown.get(one["id"])
        external = one["external_id"]
        by_external = None if external is None else db.get(external_id=external)
        if memory is None:
            if listed is not None or by_external is not None:
                tell("a memory is gone for one face and not for another")
            if one["protected"]:
                tell("a protected memory is gone")
            continue
        here += 1
        pointer = one["kind"] == "chunk" and memory.text is None
        if memory.text != one["text"] and not pointer:
            tell("a memory says something else")
        if listed != memory or (external is not None and by_external != memory):
            tell("two faces show different memories")
        number = next((w for w in (one["text"] or "").split() if w.startswith("number")), None)
        if number is not None and one["kind"] == "event":
            hits = db.recall(number, mode="lexical", k=3)
            if one["id"] not in {hit.id for hit in hits}:
                tell("a memory is not found by its words")
    return here


def _batches(db: memdb.Database) -> list[int]:
    """How many memories each batch of the trash has."""
    return sorted(len(batch.items) for batch in db.trash())


def _finished(db: memdb.Database, tell: Callable[[object], None]) -> None:
    """Nothing is half gone once the background work is done."""
    with db._engine.store.read() as txn:
        if leaving.rows(txn):
            tell("rows are leaving still")
        if dangling := leaving.dangling(txn):
            tell(f"{dangling} keys lead to memories that are gone")
    if any(receipt.state != "scrubbed" for receipt in db.receipts()):
        tell("an erasure is unfinished")


def rows_of(outcomes: list[Kills]) -> list[dict[str, Any]]:
    """A row of the table for each operation."""
    return [
        {
            "operation": one.operation,
            "points": one.points,
            "killed there": one.kills,
            "at random": one.at_random,
            "ended before": one.survived,
            "had taken something away": one.begun,
            "problems": len(one.messages),
            "verdict": "met" if one.healthy else "not met",
        }
        for one in outcomes
    ]
