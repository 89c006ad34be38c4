"""How long is a write, how many a second, and what do reads of what was written cost?

    python -m bench write [--records 100000] [--events 1000000] [--only durable] [--profile]

A durable ``remember`` is timed in turn with a bare 4 KiB write and fdatasync on the same disk, so
that a busy machine slows both. Parts: durable, batches, profile, clients, size, singles, events,
samples; each may be run alone. ``--profile`` shows where ``remember_many`` spends its time.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import memdb
from bench import makers, report
from bench.measure import BareDisk, judged, load, percentile, settle, timed, written_bytes

Rows = list[dict[str, Any]]
_FACTS = 200
_CLIENTS = 4
_DAYS_ASKED = 60
_QUESTIONS = 200


@dataclass
class Run:
    """What the parts share: sizes, a folder, and the store of ``--records`` once it is built."""

    folder: Path
    records: int
    events: int
    singles: int
    rounds: int
    seconds: float
    profile: bool
    batch: int
    writers: int = 1
    filled: memdb.Database | None = None
    rows_of_batches: Rows | None = None

    def full(self) -> memdb.Database:
        """The store with all records, built by ``remember_many`` the first time."""
        if self.filled is None:
            self.filled, self.rows_of_batches = _fill(self)
        return self.filled

    def close(self) -> None:
        if self.filled is not None:
            self.filled.close()


# --- parts ----------------------------------------------------------------------------------------


def batches(run: Run) -> Rows:
    """``remember_many`` with text, tags, metadata, stream, time and the vector given."""
    run.full()
    return run.rows_of_batches or []


def _fill(run: Run) -> tuple[memdb.Database, Rows]:
    given = makers.vectors(run.records)
    items = list(makers.memories(run.records, given))
    db = memdb.open(run.folder / "full", embedder="none")
    profiler = cProfile.Profile() if run.profile else None
    if profiler is not None:
        profiler.enable()
    seconds = timed(lambda: db.remember_many(items, batch=run.batch, progress=_told("writing")))
    if profiler is not None:
        profiler.disable()
        report.progress("")
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    settled = timed(lambda: settle(db))
    rate = run.records / seconds
    return db, [
        judged(f"remember_many, {run.records:,} records", rate, "records/s", at_least=10_000.0),
        judged("background work after it (and half a second)", settled, "s"),
    ]


def durable(run: Run) -> Rows:
    """One ``remember`` beside one bare write, in an empty store and in the full one."""
    with memdb.open(run.folder / "empty", embedder="none") as empty:
        rows = _durable(run, empty, "empty store")
    return rows + _durable(run, run.full(), f"store of {run.records:,}")


def _durable(run: Run, db: memdb.Database, label: str) -> Rows:
    disk = BareDisk(run.folder / "bare")
    given = makers.vectors(run.rounds, seed=11)
    items = list(makers.memories(run.rounds, given, seed=11))
    bare: list[float] = []
    ours: list[float] = []
    disk_bytes = 0
    for number, item in enumerate(items):
        report.progress(f"durable writes, {label}: {number}/{run.rounds}")
        bare.append(disk.write() * 1e3)
        before = written_bytes()
        ours.append(timed(partial(db.remember, **item)) * 1e3)
        disk_bytes += (written_bytes() or 0) - (before or 0)
    disk.close()
    limit = 2 * percentile(bare, 99) + 2
    rows = [
        judged(f"bare 4 KiB + fdatasync p50, {label}", percentile(bare, 50), "ms"),
        judged(f"bare 4 KiB + fdatasync p99, {label}", percentile(bare, 99), "ms"),
        judged(f"remember p50, {label}", percentile(ours, 50), "ms"),
        judged(f"remember p99, {label}", percentile(ours, 99), "ms", at_most=limit),
    ]
    if written_bytes() is not None:
        kib = disk_bytes / 1024 / max(1, run.rounds)
        rows.append(judged(f"written by a durable write, {label}", kib, "KiB"))
    return rows


def profile(run: Run) -> Rows:
    """``profile.get`` of one of some hundred facts, in the full store."""
    db = run.full()
    for number in range(_FACTS):
        db.profile.set(f"fact {number}", {"value": number})
    names = [f"fact {number * 37 % _FACTS}" for number in range(max(2000, run.rounds * 10))]
    micros = [timed(partial(db.profile.get, name)) * 1e6 for name in names]
    return [
        judged("profile.get p50", percentile(micros, 50), "us", at_most=20.0),
        judged("profile.get p99", percentile(micros, 99), "us"),
    ]


def clients(run: Run) -> Rows:
    """Four threads of one process, then four processes, writing durably as fast as they can."""
    db = run.full()
    found: list[list[float]] = [[] for _ in range(_CLIENTS)]

    def write(place: int) -> None:
        found[place] = write_for(db, place, run.seconds)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(_CLIENTS)]
    report.progress(f"{_CLIENTS} threads")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = _clients_rows("threads", list(chain.from_iterable(found)), run.seconds)
    report.progress(f"{_CLIENTS} processes")
    command = [sys.executable, "-m", "bench.write", "worker", str(db.path)]
    processes = [
        subprocess.Popen([*command, str(place), str(run.seconds)], stdout=subprocess.PIPE)
        for place in range(_CLIENTS)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a writing process failed; what it said is above")
    return rows + _clients_rows(
        "processes", list(chain.from_iterable(map(json.loads, outputs))), run.seconds
    )


def _clients_rows(what: str, millis: list[float], seconds: float) -> Rows:
    label = f"{_CLIENTS} {what} writing"
    return [
        judged(f"{label}: together", len(millis) / seconds, "writes/s"),
        judged(f"{label}: p50", percentile(millis, 50), "ms"),
        judged(f"{label}: p99", percentile(millis, 99), "ms"),
    ]


def write_for(db: memdb.Database, seed: int, seconds: float) -> list[float]:
    """Milliseconds of each durable write of one client."""
    given = makers.vectors(512, seed=100 + seed)
    items = list(makers.memories(512, given, seed=100 + seed))
    millis: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        item = items[len(millis) % len(items)]
        external = f"{seed}-{time.time_ns()}-{len(millis)}"
        millis.append(timed(partial(db.remember, **item, external_id=external)) * 1e3)
    return millis


def worker(path: str, seed: int, seconds: float) -> None:
    """One process of ``clients``; it prints its times."""
    with memdb.open(path, embedder="none", create=False) as db:
        db.count()
        print(json.dumps(write_for(db, seed, seconds)))


def size(run: Run) -> Rows:
    """Bytes of the full store by component, at rest and compacted, against text and vectors."""
    db = run.full()
    settle(db)
    raw = sum(len((memory.text or "").encode()) + 4 * makers.DIM for memory in db.iter())
    rows = [judged("text and float32 vectors", raw / 1e6, "MB")]
    for label in ("at rest", "compacted"):
        report.progress(f"size, {label}")
        if label == "compacted":
            db.compact()
            settle(db)
        taken = db.stats()["bytes"]
        parts = {f"file {name}": count for name, count in taken["files"].items()}
        parts |= {f"table {name}": count for name, count in taken["tables"].items()}
        largest = sorted(parts.items(), key=lambda part: -part[1])
        rows.append(judged(f"store, {label}", taken["total"] / 1e6, "MB"))
        rows.append(judged(f"store / raw, {label}", taken["total"] / raw, "ratio"))
        rows += [judged(f"  {name}", count / 1e6, "MB") for name, count in largest if count > 1e5]
    return rows


def singles(run: Run) -> Rows:
    """Recall in a store built by single writes, beside one built in batches of the same."""
    given = makers.vectors(run.singles, seed=5)
    items = list(makers.memories(run.singles, given, seed=5))
    questions = list(makers.texts(_QUESTIONS, seed=6, per_text=4))
    asked = makers.vectors(_QUESTIONS, seed=6)
    rows: Rows = []
    with (
        memdb.open(run.folder / "batches", embedder="none") as together,
        memdb.open(run.folder / "singles", embedder="none") as alone,
    ):
        together.remember_many(items)
        started = time.perf_counter()
        with ThreadPoolExecutor(run.writers) as pool:
            for number, _ in enumerate(pool.map(lambda item: alone.remember(**item), items)):
                if number % 100 == 0:
                    report.progress(f"single writes: {number:,}/{run.singles:,}")
        rate = run.singles / (time.perf_counter() - started)
        name = f"single writes, {run.singles:,} records, {run.writers} at a time"
        rows.append(judged(name, rate, "records/s"))
        settle(together)
        settle(alone)
        for mode in ("lexical", "vector", "hybrid"):
            times: tuple[list[float], list[float]] = ([], [])
            work: tuple[list[float], list[float]] = ([], [])
            for text, vector in zip(questions, asked, strict=True):
                for place, db in enumerate((together, alone)):
                    before = time.thread_time()
                    times[place].append(
                        timed(partial(db.recall, text, vector=vector, mode=mode)) * 1e3
                    )
                    work[place].append((time.thread_time() - before) * 1e3)
            medians = [percentile(one, 50) for one in times]
            rows.append(judged(f"recall {mode} p50, built in batches", medians[0], "ms"))
            for what, found in (("", times), (" (processor time)", work)):
                ratio = percentile(found[1], 50) / percentile(found[0], 50)
                name = f"recall {mode}, singles / batches{what}"
                rows.append(judged(name, ratio, "ratio", at_most=1.5))
    return rows


def events(run: Run) -> Rows:
    """One day out of all events with text, and what writing them takes."""
    with memdb.open(run.folder / "events", embedder="none") as db:
        made = makers.events(run.events)
        seconds = 0.0
        done = 0
        while chunk := list(islice(made, 50_000)):
            report.progress(f"events: {done:,}/{run.events:,}")
            seconds += timed(partial(db.remember_many, chunk))
            done += len(chunk)
        settle(db)
        rate = judged(f"events with text, {run.events:,}", run.events / seconds, "records/s")
        return [rate, *_one_day(run, db, "message", "events")]


def samples(run: Run) -> Rows:
    """One day out of all samples of a sensor, which are a series of blocks."""
    with memdb.open(run.folder / "samples", embedder="none") as db:
        made = makers.samples(run.events)
        seconds = timed(lambda: db.history.append_many("pulse", made, stream="watch"))
        settle(db)
        rate = judged(f"samples, {run.events:,}", run.events / seconds, "samples/s")
        each = judged("a sample on disk", db.stats()["bytes"]["total"] / run.events, "bytes")
        return [rate, each, *_one_day(run, db, "pulse", "samples")]


def _one_day(run: Run, db: memdb.Database, kind: str, label: str) -> Rows:
    days = makers.days(run.events)
    millis = []
    for number in range(_DAYS_ASKED):
        start = makers.START + timedelta(days=number * 13 % max(1, days - 1))
        end = start + timedelta(days=1)
        started = time.perf_counter()
        found = sum(1 for _ in db.history.range(kind, start, end))
        millis.append((time.perf_counter() - started) * 1e3)
        if found != min(makers.EVENTS_A_DAY, run.events):
            raise RuntimeError(f"a day of {label} gave {found:,}")
    name = f"one day of {run.events:,} {label}"
    return [
        judged(f"{name}, p50", percentile(millis, 50), "ms"),
        judged(f"{name}, p95", percentile(millis, 95), "ms", at_most=5.0),
    ]


def _told(what: str) -> Callable[[int, int | None], None]:
    return lambda done, total: report.progress(f"{what}: {done:,}/{total or 0:,}")


PARTS: dict[str, Callable[[Run], Rows]] = {
    "batches": batches,
    "durable": durable,
    "profile": profile,
    "size": size,
    "clients": clients,
    "singles": singles,
    "events": events,
    "samples": samples,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench write", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=100_000, help="a thousand are a day")
    parser.add_argument("--singles", type=int, default=20_000, help="records written one by one")
    parser.add_argument("--writers", type=int, default=1, help="threads that write one by one")
    parser.add_argument("--rounds", type=int, default=400, help="durable writes timed")
    parser.add_argument("--seconds", type=float, default=5.0, help="each kind of client writes")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--only", action="append", choices=sorted(PARTS))
    parser.add_argument("--profile", action="store_true", help="profile remember_many")
    parser.add_argument("--folder", type=Path, help="make the databases here (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    rows: Rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = Run(
            Path(folder),
            options.records,
            options.events,
            options.singles,
            options.rounds,
            options.seconds,
            options.profile,
            options.batch,
            options.writers,
        )
        for name, part in PARTS.items():
            if not options.only or name in options.only:
                before = load()["load"]
                rows += [{**row, "load": before and before[0]} for row in part(run)]
        run.close()
    report.table(rows)
    report.save(options.json, "write", arguments, rows)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        raise SystemExit(0)
    raise SystemExit(main(sys.argv[1:]))
