"""``python -m bench forgetting year``: a year of memories under a disk budget that never moves.

A hundred memories a day are written by a database whose clock is set by hand. ``du`` of the
directory is taken all the time by a thread of its own, and another one asks questions and times
them.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

import memdb
from bench import measure, report
from bench.recall_data import conversations, text_of

PAUSE_LIMIT_MS = 20.0
_EACH_DAY = 100
_DU_EVERY_S = 0.005


class DayClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2025, 1, 1, 8, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


def disk_bytes(path: Path) -> int:
    """Allocated bytes of everything under ``path``, as ``du`` counts them."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


@dataclass
class Watch:
    """Two threads beside the writer: the greatest ``du``, and how long reads took."""

    db: memdb.Database
    questions: list[str]
    most: int = 0
    reads_s: list[float] = field(default_factory=list)
    looks: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=one) for one in (self._du, self._read)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _du(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, disk_bytes(self.db.path))
            self.looks += 1
            self._stop.wait(_DU_EVERY_S)

    def _read(self) -> None:
        place = 0
        while not self._stop.is_set():
            question = self.questions[place % len(self.questions)]
            place += 1
            self.reads_s.append(measure.timed(lambda q=question: self.db.count({"kind": q})))
            self._stop.wait(0.002)


def run(
    items: Iterator[dict[str, Any]],
    budget: int | str,
    days: int,
    each_day: int,
    embedder: Any = None,
) -> dict[str, Any]:
    """Live through it; figures of the whole."""
    clock = DayClock()
    written = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.open(Path(folder) / "db", clock=clock, embedder=embedder) as db,
    ):
        db.settings.disk_budget = budget  # type: ignore[assignment]
        limit = db.settings.disk_budget or 0
        fact = db.profile.set("name", "Ana", subject="user").id
        pins = [db.remember(f"a pinned thing, number {n}", pinned=True).id for n in range(20)]
        started, cpu = time.monotonic(), time.process_time()
        with Watch(db, ["event", "note", "profile"]) as watch:
            for day in range(days):
                report.progress(f"day {day + 1} of {days}: {db.count()} memories")
                written += len(db.remember_many([next(items) for _ in range(each_day)]))
                clock.moment += timedelta(days=1)
        reads_ms = np.array(watch.reads_s) * 1e3
        found = db.check()
        lost = sum(db.get(id) is None for id in (fact, *pins))
        return {
            "budget": limit,
            "written": written,
            "kept": db.count(),
            "greatest du": watch.most,
            "du looks": watch.looks,
            "du over budget": max(0, watch.most - limit),
            "protected lost": lost,
            "sound": bool(found["ok"]),
            "reads": len(reads_ms),
            "read p50 ms": float(np.percentile(reads_ms, 50)),
            "read p99 ms": float(np.percentile(reads_ms, 99)),
            "read max ms": float(reads_ms.max()),
            "seconds": time.monotonic() - started,
            "cpu seconds": time.process_time() - cpu,
            "last": db.retention.status()["last"],
        }


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


def measure_year(folder: Path, budget: str, days: int, embedder: Any) -> dict[str, Any]:
    """``run`` on the conversations of a folder."""
    return run(_items(folder), budget, days, _EACH_DAY, embedder)


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that have limits, and what they rest on."""
    return [
        measure.judged("greatest du", found["greatest du"], "B", at_most=found["budget"]),
        measure.judged("protected memories lost", found["protected lost"], "", at_most=0),
        measure.judged("longest read", found["read max ms"], "ms", at_most=PAUSE_LIMIT_MS),
        measure.judged("99th percentile of reads", found["read p99 ms"], "ms"),
        *(measure.judged(n, found[n], "") for n in ("written", "kept", "reads", "du looks")),
        measure.judged("processor time", found["cpu seconds"], "s"),
    ]
