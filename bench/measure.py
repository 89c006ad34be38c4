"""What several benchmarks need: percentiles, the bare disk, a store at rest, a machine's load.

A figure that has a limit is judged here and nowhere else: ``met`` or ``not met``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report

_PAGE = os.urandom(4096)
_FILE_PAGES = 2048


def percentile(seconds: Iterable[float], percent: float) -> float:
    """In the unit given; the value that ``percent`` of the samples do not exceed."""
    return float(np.percentile(np.fromiter(seconds, np.float64), percent, method="higher"))


def judged(
    figure: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> dict[str, Any]:
    """A row of the table; the verdict is None where there is no limit."""
    limit = verdict = None
    if at_most is not None:
        limit, verdict = f"<= {report.number(at_most)}", value <= at_most
    elif at_least is not None:
        limit, verdict = f">= {report.number(at_least)}", value >= at_least
    said = None if verdict is None else "met" if verdict else "not met"
    return {"figure": figure, "value": value, "unit": unit, "limit": limit, "verdict": said}


def timed(call: Callable[[], Any]) -> float:
    """Seconds one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class BareDisk:
    """A preallocated file whose pages are overwritten and synced one at a time."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR)
        os.pwrite(self._file, _PAGE * _FILE_PAGES, 0)
        os.fsync(self._file)
        self._sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
        self._next = 0

    def write(self) -> float:
        """Seconds for 4 KiB and its sync."""
        at = self._next % _FILE_PAGES * len(_PAGE)
        self._next += 1
        started = time.perf_counter()
        os.pwrite(self._file, _PAGE, at)
        self._sync(self._file)
        return time.perf_counter() - started

    def close(self) -> None:
        os.close(self._file)


def written_bytes() -> int | None:
    """Bytes this process has handed to write calls so far; None where the system does not say.

    Not ``write_bytes``: where the page cache holds a file in large folios, Linux counts a whole
    folio (2 MiB) for 4 KiB written into it.
    """
    counters = Path("/proc/self/io")
    try:
        lines = counters.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("wchar")), None)


def settle(db: memdb.Database, limit_s: float = 300.0) -> bool:
    """Wait until nothing has changed for half a second; False when it took too long.

    Some backlog is left on purpose: background work waits until there is enough of it. What has
    begun to be merged is merged.
    """
    deadline = time.monotonic() + limit_s
    quiet, last = 0, None
    while time.monotonic() < deadline:
        state = db.stats()
        report.progress(f"background work: {state['backlog']}")
        position = (state["content_seq"], state["layout_seq"], str(state["backlog"]))
        settled = position == last and not state["backlog"]["segments_to_merge"]
        quiet = quiet + 1 if settled else 0
        if quiet >= 5:
            return True
        last = position
        time.sleep(0.1)  # background work reports its backlog, not its end
    return False


def load() -> dict[str, Any]:
    """Who else is at work: the load averages of the machine, beside its cores."""
    averages = [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {"load": averages, "cores": os.cpu_count()}
