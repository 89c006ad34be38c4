"""``python -m bench ann mixed``: searches of an index that is being written, linked and cleaned.

Turns alternate. In a quiet one nothing is written; in a busy one vectors are added and replaced in
batches at a given pace, and others removed, while what waits is linked and what was removed is
taken out. One thread searches all the time. A control thread, which scans a small index of its own
that nobody writes, says what the machine itself adds: the longest pause of a search counts beyond
the control's. How many slots a second are linked on one core is measured alone, at the end.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.ann.data import DataSet
from bench.measure import load, percentile

_BATCH = 1000
_TURNS = 3
_EFFORT = 120
_CONTROL = 5000

Row = dict[str, Any]


@dataclass
class Searching:
    """One thread's searches: (begin, seconds) of each."""

    index: memdb.VectorIndex
    queries: Any
    k: int
    effort: int | None
    pause_s: float
    taken: list[tuple[float, float]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(self.pause_s):
            began = time.perf_counter()
            self.index.search(self.queries[number % len(self.queries)], self.k, effort=self.effort)
            self.taken.append((began, time.perf_counter() - began))
            number += 1

    def between(self, first: float, last: float) -> list[float]:
        """Seconds of the searches begun between two times."""
        return [spent for began, spent in self.taken if first <= began < last]


def measure(
    data: DataSet,
    profile: str,
    folder: Path,
    options: argparse.Namespace,
    hear: Callable[[Row], None],
) -> None:
    """One row. Half of the vectors are there at first; ``options.pace`` a second are written in
    busy turns."""
    k, turn_s, turns = options.k, options.seconds, options.rounds or _TURNS
    n = len(data.base) // 2
    made = {"dim": data.dim, "metric": data.metric, "memory_budget": "16GiB"}
    index = memdb.VectorIndex(folder / "mixed", kind="ssd", profile=profile, **made)
    control = memdb.VectorIndex(folder / "control", kind="flat", profile=profile, **made)
    with index, control:
        for first in range(0, n, 65_536):
            ids = np.arange(first, min(first + 65_536, n))
            index.add(ids, data.base[ids])
        index.wait()
        control.add(np.arange(min(n, _CONTROL)), data.base[: min(n, _CONTROL)])
        control.wait()
        asking = Searching(index, data.queries, k, _EFFORT, 0.001)
        beside = Searching(control, data.queries, k, None, 0.001)
        threads = [threading.Thread(target=one.run, daemon=True) for one in (asking, beside)]
        for thread in threads:
            thread.start()
        writer = _Writer(index, data, n, options.pace)
        spans: dict[str, list[tuple[float, float]]] = {"quiet": [], "busy": []}
        for turn in range(turns):
            report.progress(f"mixed: turn {turn + 1} of {turns}")
            began = time.perf_counter()
            time.sleep(turn_s)  # the turn is what is measured
            spans["quiet"].append((began, time.perf_counter()))
            began = time.perf_counter()
            writer.run(turn_s)
            spans["busy"].append((began, time.perf_counter()))
            index.wait()
        for one in (asking, beside):
            one.stopping.set()
        for thread in threads:
            thread.join()
        row = _row(asking, beside, spans)
        row |= {"added": writer.added, "removed": writer.removed, "ack_per_s": writer.pace()}
        row |= {"ack_p99_ms": percentile(writer.seconds, 99) * 1e3, "vectors": n}
        row |= _linking(index, data, n)
        hear({"part": "mixed", "label": f"memdb ssd {profile}", **row, "load": load()["load"]})


class _Writer:
    """Adds what is new, replaces what is there and removes, in turns of a batch."""

    def __init__(self, index: memdb.VectorIndex, data: DataSet, n: int, per_second: int) -> None:
        self._index, self._data, self._n, self._per_second = index, data, n, per_second
        self._rng = np.random.default_rng(1)
        self.seconds: list[float] = []
        self.added = self.removed = 0

    def run(self, turn_s: float) -> None:
        began = time.perf_counter()
        done = 0
        while time.perf_counter() - began < turn_s:
            ahead = done / self._per_second - (time.perf_counter() - began)
            if ahead > 0:
                time.sleep(min(ahead, turn_s))  # the pace that was asked for
            done += self._batch(len(self.seconds))

    def _batch(self, number: int) -> int:
        n = self._n
        ids = self._rng.choice(2 * n, _BATCH, replace=False)
        if number % 4 == 3:
            self.removed += self._index.remove(ids[: _BATCH // 2])
        before = time.perf_counter()
        self._index.add(ids, self._data.base[(ids + n) % (2 * n)])
        self.seconds.append(time.perf_counter() - before)
        self.added += len(ids)
        return len(ids)

    def pace(self) -> float:
        """Vectors a second of the time in which batches were written."""
        return self.added / max(1e-9, sum(self.seconds))


def _row(asking: Searching, beside: Searching, spans: dict[str, list[tuple[float, float]]]) -> Row:
    row: Row = {}
    for name, when in spans.items():
        for who, one in (("", asking), ("control_", beside)):
            turns = [one.between(*span) for span in when]
            every = [spent for turn in turns for spent in turn]
            row[f"{who}{name}_searches"] = len(every)
            row[f"{who}{name}_p50_ms"] = percentile(every, 50) * 1e3
            row[f"{who}{name}_p99_ms"] = percentile(every, 99) * 1e3
            row[f"{who}{name}_longest_ms"] = max(every) * 1e3
    for who in ("", "control_"):
        row[f"{who}p99_ratio"] = row[f"{who}busy_p99_ms"] / row[f"{who}quiet_p99_ms"]
    return row


def _linking(index: memdb.VectorIndex, data: DataSet, n: int) -> Row:
    """Slots linked a second of one core's time, with nothing else to do."""
    count = min(n, 2000)
    before = index.stats()["linked_in_place"]
    index.add(np.arange(4 * n, 4 * n + count), data.base[:count])
    began, spent = time.perf_counter(), time.process_time()
    index.wait()
    spent, took = time.process_time() - spent, time.perf_counter() - began
    linked = index.stats()["linked_in_place"] - before
    return {"linked_per_cpu_s": linked / spent, "linked_per_s": linked / took}


def table(rows: list[Row]) -> list[Row]:
    """What a search takes in quiet and in busy turns, and beside it the control."""
    shown = []
    for row in rows:
        if row.get("part") != "mixed":
            continue
        for who, name in (("", row["label"]), ("control_", "control, private")):
            shown.append(
                {
                    "searches of": f"{name}, {row['vectors']:,}" if not who else name,
                    "quiet p50 ms": row[f"{who}quiet_p50_ms"],
                    "quiet p99 ms": row[f"{who}quiet_p99_ms"],
                    "busy p50 ms": row[f"{who}busy_p50_ms"],
                    "busy p99 ms": row[f"{who}busy_p99_ms"],
                    "p99 ratio": row[f"{who}p99_ratio"],
                    "longest, busy ms": row[f"{who}busy_longest_ms"],
                    "acknowledged/s": row["ack_per_s"] if not who else None,
                    "linked/cpu s": row["linked_per_cpu_s"] if not who else None,
                }
            )
    return shown
