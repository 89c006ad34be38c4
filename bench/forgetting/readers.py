"""Readers beside a writer: how long each read took, and how long it waited for a processor.

A read is a look-up (``db.get``, ``db.profile.get``) or a recall. It is made in turn on the database
that is written and on a *control* nobody writes, in the same thread: what the machine, and Python's
lock in the writer's process, do to both is not the database's doing. Of what a read took by the
clock, Linux says how long the thread stood ready with no processor free (``schedstat``), and how
long it worked. A *pause* is the rest (locks, the disk), and what it worked more than half of the
reads of its kind do: caches to be made anew are somebody's doing too.

    python -m bench.forgetting.readers DATABASE CONTROL PINNED OUT < questions.json

reads until its input ends, in a process of its own, and takes ``du`` of the directory meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import memdb

KINDS = ("look-up", "recall")
_EVERY_S = 0.004
_RECALL_EVERY = 4  # a recall among so many reads: on two cores the writer needs one

READ = np.dtype(
    [(name, "f8") for name in ("at", "took", "waited", "worked")]
    + [(name, "u1") for name in ("kind", "live")]
)
"""One read in seconds: its start (monotonic), what it took, what it waited for a processor, what it
used of one."""


def disk_bytes(path: Path) -> int:
    """Allocated bytes of everything under ``path``, as ``du`` counts them."""
    total = 0
    pending = [os.fspath(path)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue  # a folder that went between the listing and the look
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


class _Waiting:
    """How long the calling thread has stood ready without a processor; 0 where nobody says."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._file = None

    def seconds(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9


@dataclass
class Reader:
    """Reads in a thread until it is told to end; then ``reads`` says what came of it."""

    db: memdb.Database
    control: memdb.Database
    pinned: str
    questions: list[str]
    du: bool = False
    most: int = 0
    looks: int = 0
    missed: int = 0
    failure: BaseException | None = None
    _rows: list[tuple[float, float, float, float, int, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._guarded, name="reader")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None and error[0] is None:
            raise self.failure

    @property
    def reads(self) -> NDArray[Any]:
        return np.array(self._rows, READ)

    def _guarded(self) -> None:
        try:
            self.loop()
        except BaseException as failure:  # noqa: BLE001 - raised in the thread that waits
            self.failure = failure

    def loop(self) -> None:
        waiting = _Waiting()
        for number in range(1 << 62):
            for live, db in ((1, self.db), (0, self.control)):
                kind = int(number % _RECALL_EVERY == 0)
                before, used, started = waiting.seconds(), time.thread_time(), time.monotonic()
                if kind:
                    found: object = db.recall(self.questions[number % len(self.questions)])
                elif live and number % 2:
                    found = db.get(self.pinned)
                else:
                    found = db.profile.get("name", subject="user")
                took = time.monotonic() - started
                worked = time.thread_time() - used
                waited = waiting.seconds() - before
                self._rows.append((started, took, waited, worked, kind, live))
                self.missed += found is None
            if self.du:
                self.most = max(self.most, disk_bytes(self.db.path))
                self.looks += 1
            if self._stop.wait(_EVERY_S):
                return

    def stop(self) -> None:
        self._stop.set()


class Elsewhere:
    """The same in a process of its own."""

    def __init__(self, path: Path, control: Path, pinned: str, questions: list[str]) -> None:
        self._out = path.parent / "reads.npz"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(path), str(control), pinned, str(self._out)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(questions) + "\n")
        self._process.stdin.flush()
        self.reads = np.empty(0, READ)
        self.most = self.looks = self.missed = 0

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "reading":
            raise RuntimeError("the reading process did not start")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(60) and error[0] is None:
            raise RuntimeError("the reading process failed")
        if self._out.exists():
            with np.load(self._out) as found:
                self.reads = found["reads"]
                self.most, self.looks, self.missed = (int(n) for n in found["du"])


def pauses_s(reads: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) the pause in each of these reads."""
    usual = np.zeros(len(reads))
    for live in (0, 1):
        for kind in range(len(KINDS)):
            some = (reads["live"] == live) & (reads["kind"] == kind)
            if some.any():
                usual[some] = np.median(reads["worked"][some])
    found: NDArray[np.float64] = reads["took"] - reads["waited"] - usual
    return found


def figures(reads: NDArray[Any]) -> dict[str, Any]:
    """Milliseconds of reads by kind and database: by the clock, worked, and the pause in them."""
    found: dict[str, Any] = {}
    pauses = pauses_s(reads)
    for live, whose in ((1, "live"), (0, "control")):
        for number, kind in enumerate(KINDS):
            some = (reads["live"] == live) & (reads["kind"] == number)
            if not some.any():
                continue
            parts = {"": reads["took"], " worked": reads["worked"], " pause": pauses}
            for name, seconds in parts.items():
                points = np.percentile(seconds[some] * 1e3, (50, 99, 99.9, 100), method="higher")
                found[f"{whose} {kind}{name} ms"] = dict(
                    zip(("p50", "p99", "p99.9", "max"), points.tolist(), strict=True)
                )
            found[f"{whose} {kind}s"] = int(some.sum())
    return found


def longest_pause_s(reads: NDArray[Any], *, live: bool) -> float:
    """Of all reads of one database."""
    some = pauses_s(reads)[reads["live"] == int(live)]
    return float(some.max()) if len(some) else 0.0


def main(arguments: list[str]) -> int:
    path, control, pinned, out = arguments
    questions = json.loads(sys.stdin.readline())
    with memdb.open(path, create=False) as db, memdb.open(control, create=False) as beside:
        db.recall(questions[0])  # the model and what searches keep
        beside.recall(questions[0])
        reader = Reader(db, beside, pinned, questions, du=True)
        print("reading", flush=True)

        def end() -> None:
            sys.stdin.read()
            reader.stop()

        threading.Thread(target=end, daemon=True).start()
        reader.loop()
        np.savez(out, reads=reader.reads, du=(reader.most, reader.looks, reader.missed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
