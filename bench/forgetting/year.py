"""``python -m bench forgetting year``: a year of memories under a disk budget that never moves.

A hundred memories a day are written by a database whose clock is set by hand. ``du`` of the
directory is taken after every step of the writer that can change it (a commit, a sync, a rename, a
removal) and all the time by another process. Two readers, a thread of the writer's process and a
process of its own, time look-ups and recalls beside a control (``readers.py``). What was going on
during the longest of them is told by the operations that were under way.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb
from bench import measure, report
from bench.forgetting.readers import (
    Elsewhere,
    Reader,
    disk_bytes,
    figures,
    longest_pause_s,
    pauses_s,
)
from bench.recall_data import conversations, text_of
from memdb.retention import applying, cleaning, leaving, planning, room

PAUSE_LIMIT_MS = 20.0
_EACH_DAY = 100
_CONTROL = 2_000
_QUESTIONS = 200
_LONG_S = 0.010
"""A pause that is told apart by what was going on."""


class DayClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2025, 1, 1, 8, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@dataclass
class Operations:
    """What a process does to a database: ``du`` after each thing done to the disk, and when each
    operation of retention was under way."""

    path: Path
    most: int = 0
    looks: int = 0
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    def look(self) -> None:
        self.most = max(self.most, disk_bytes(self.path))
        self.looks += 1

    def named(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            started = time.monotonic()
            try:
                return function(*arguments, **keywords)
            finally:
                self.spans.append((name, started, time.monotonic()))

        return run

    def looked_at(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            try:
                return function(*arguments, **keywords)
            finally:
                self.look()

        return run


@contextmanager
def watched(db: memdb.Database) -> Iterator[Operations]:
    """Within the block, what this process does to ``db`` is told."""
    found = Operations(db.path)
    store, writes = type(db._engine.store), type(db._engine.store._writes)
    applier = applying.Applier
    operations = [
        ("plan", planning, "make"),
        ("evict", applier, "lower"),
        ("leave", leaving, "step"),
        ("forget keys", leaving, "_drop_keys"),
        ("encode", room, "encode"),
        ("freeze", room, "freeze"),
        ("convert", room, "convert"),
        ("trash", room, "purge_trash"),
        ("clean", cleaning, "clean"),
        ("copy", store, "compact"),
        ("write", writes, "_commit_group"),
    ]
    looks = [
        *((os, name) for name in ("fsync", "fdatasync", "rename", "replace", "unlink", "rmdir")),
        (writes, "_commit_group"),
        (store, "_replace"),
    ]
    with ExitStack() as undone:
        for name, owner, attribute in operations:
            _replace(undone, owner, attribute, found.named(name, getattr(owner, attribute)))
        for owner, attribute in looks:
            _replace(undone, owner, attribute, found.looked_at(getattr(owner, attribute)))
        yield found


def _replace(undone: ExitStack, owner: Any, attribute: str, by: Any) -> None:
    undone.callback(setattr, owner, attribute, getattr(owner, attribute))
    setattr(owner, attribute, by)


def during(reads: NDArray[Any], spans: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Long pauses of the database that is written, by the operations under way: how many, and the
    longest in milliseconds."""
    pauses = pauses_s(reads)
    found: dict[str, Any] = {}
    for place in np.flatnonzero((pauses > _LONG_S) & (reads["live"] == 1)).tolist():
        start, end = reads["at"][place], reads["at"][place] + reads["took"][place]
        names = {name for name, first, last in spans if first < end and last > start}
        label = " + ".join(sorted(names)) or "nothing"
        count, longest = found.get(label, (0, 0.0))
        found[label] = (count + 1, max(longest, float(pauses[place]) * 1e3))
    return found


def run(
    items: Iterator[dict[str, Any]],
    budget: int | str,
    days: int,
    each_day: int,
    embedder: Any = None,
    *,
    elsewhere: bool = False,
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """Live through it, for ``seconds`` at most; figures of the whole. ``elsewhere``: with a reading
    process."""
    clock = DayClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.open(Path(folder) / "db", clock=clock, embedder=embedder) as db,
        memdb.open(Path(folder) / "control", clock=clock, embedder=embedder) as control,
    ):
        some = list(islice(items, _CONTROL if elsewhere else 50))
        control.remember_many(some)
        questions = [" ".join(one["text"].split()[:8]) for one in some[:_QUESTIONS]]
        for one in (control, db):
            one.profile.set("name", "Ana", subject="user")
        pins = [db.remember(f"a pinned thing, number {n}", pinned=True).id for n in range(20)]
        db.settings.disk_budget = budget
        limit = db.settings.disk_budget or 0
        started, cpu = time.monotonic(), time.process_time()
        days_lived: list[dict[str, Any]] = []
        with ExitStack() as beside:
            operations = beside.enter_context(watched(db))
            process = None
            if elsewhere:
                process = Elsewhere(db.path, control.path, pins[0], questions)
                beside.enter_context(process)
            reader = beside.enter_context(Reader(db, control, pins[0], questions))
            for day in range(days):
                if time.monotonic() - started > seconds:
                    break
                report.progress(f"day {day + 1} of {days}: {db.count()} memories")
                db.remember_many([next(items) for _ in range(each_day)])
                clock.moment += timedelta(days=1)
                days_lived.append({"kept": db.count(), "du": disk_bytes(db.path)})
        found = db.check()
        lost = len(pins) - sum(one is not None for one in db.get_many(pins))
        lost += db.profile.get("name", subject="user") != "Ana"
        most = max(operations.most, 0 if process is None else process.most)
        return {
            "budget": limit,
            "days": len(days_lived),
            "written": each_day * len(days_lived),
            "kept": db.count(),
            "greatest du": most,
            "du looks": operations.looks + (0 if process is None else process.looks),
            "du over budget": max(0, most - limit),
            "protected lost": lost + reader.missed + (0 if process is None else process.missed),
            "sound": bool(found["ok"]),
            "readers": {
                name: {
                    **figures(reads),
                    "longest pause ms": longest_pause_s(reads, live=True) * 1e3,
                    "control's longest ms": longest_pause_s(reads, live=False) * 1e3,
                    "during": during(reads, operations.spans),
                }
                for name, reads in (
                    ("thread", reader.reads),
                    *(() if process is None else (("process", process.reads),)),
                )
            },
            "operations": _operations(operations.spans),
            "seconds": time.monotonic() - started,
            "cpu seconds": time.process_time() - cpu,
            "last": db.retention.status()["last"],
            "day by day": days_lived,
        }


def _operations(spans: list[tuple[str, float, float]]) -> dict[str, dict[str, float]]:
    """How often each operation ran, and for how long."""
    found: dict[str, dict[str, float]] = {}
    for name, first, last in spans:
        one = found.setdefault(name, {"count": 0, "seconds": 0.0, "longest ms": 0.0})
        one["count"] += 1
        one["seconds"] += last - first
        one["longest ms"] = max(one["longest ms"], (last - first) * 1e3)
    return found


def _items(folder: Path) -> Iterator[dict[str, Any]]:
    """The turns of all conversations, again and again: only what they say repeats."""
    number = 0
    while True:
        for path in sorted(folder.glob("*.jsonl")):
            for conversation in conversations(path):
                for item in conversation["items"]:
                    number += 1
                    yield {
                        "text": text_of(item),
                        "kind": "event",
                        "stream": f"{path.stem}/{conversation['id']}",
                        "external_id": str(number),
                    }


def measure_year(
    folder: Path, budget: str, days: int, embedder: Any, seconds: float
) -> dict[str, Any]:
    """``run`` on the conversations of a folder, with both readers."""
    return run(_items(folder), budget, days, _EACH_DAY, embedder, elsewhere=True, seconds=seconds)


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that have limits, and what they rest on."""
    rows = [
        measure.judged("greatest du", found["greatest du"], "B", at_most=found["budget"]),
        measure.judged("protected memories lost", found["protected lost"], "", at_most=0),
    ]
    for name, one in found["readers"].items():
        rows += [
            measure.judged(
                f"longest pause, {name}", one["longest pause ms"], "ms", at_most=PAUSE_LIMIT_MS
            ),
            measure.judged(f"  the control's, {name}", one["control's longest ms"], "ms"),
        ]
        for kind in ("look-up", "recall"):
            for whose in ("live", "control"):
                p99 = one[f"{whose} {kind} pause ms"]["p99.9"]
                rows.append(measure.judged(f"  {whose} {kind}s, p99.9, {name}", p99, "ms"))
    rows += [measure.judged(n, found[n], "") for n in ("days", "written", "kept", "du looks")]
    rows.append(measure.judged("processor time", found["cpu seconds"], "s"))
    return rows
