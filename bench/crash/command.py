"""What is left of a run when the power fails: anything acknowledged missing, anything wrong?

    python -m bench crash index --operations 1000 --subsets 1000
    python -m bench crash database --operations 200 --subsets 500

A run of the real library in a process of its own is recorded: every write, size, name and sync of
its files, in order. Then the folder is made again as a crash may have left it: at every sync, what
was durable and nothing else; and at ``--subsets`` instants chosen by the seed, any subset of what
was not synced, page by page, some of them torn. Each is opened by another process and compared with
what had been acknowledged by then; what was in flight must have happened wholly or not at all.
Every subset, and one sync in twenty, is written to afterwards, waited for, and looked at again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import report
from bench.crash import of_database, of_index
from bench.crash.disk import Contents, Disk, lay_out
from bench.crash.recording import CannotRecord, Event, Kind, events, record, recorder

SUBJECTS: Final[dict[str, Any]] = {"index": of_index, "database": of_database}
_MARKS: Final = "marks"
_BEGUN, _DONE = b"B", b"D"
_DEEP_EVERY: Final = 20
_KEPT: Final = 3  # folders that were found wrong


@dataclass
class Outcome:
    """What a replay counted; a healthy one found nothing wrong."""

    operations: int = 0
    events: int = 0
    syncs: int = 0
    subsets: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.wrong


@dataclass(frozen=True)
class Case:
    """One folder that is judged: what it is of, and what was acknowledged."""

    folder: Path
    what: str
    done: int
    flying: bool
    deep: bool


# --- in the recorded process, and in those that judge ---------------------------------------------


def drive(subject: str, root: Path, seed: int, count: int) -> None:
    """The run; ``marks`` says which operations are begun and done."""
    out = os.open(root / _MARKS, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    SUBJECTS[subject].drive(
        root, seed, count, lambda: os.write(out, _BEGUN), lambda: os.write(out, _DONE)
    )
    os.close(out)


_judge: of_index.Judge | of_database.Judge | None = None


def _prepare(subject: str, seed: int, count: int) -> None:
    global _judge
    _judge = SUBJECTS[subject].Judge(seed, count)


def _judged(case: Case) -> list[str]:
    assert _judge is not None
    return _judge.judge(case.folder, case.done, case.flying, deep=case.deep)


# --- the replay -------------------------------------------------------------------------------


class _Judges:
    """Processes that look at folders, a few at a time; one that dies is a finding."""

    def __init__(self, subject: str, seed: int, count: int, jobs: int, outcome: Outcome) -> None:
        self._how = (subject, seed, count)
        self._jobs = jobs
        self._outcome = outcome
        self._running: list[tuple[Case, Future[list[str]]]] = []
        self._pool = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, initializer=_prepare, initargs=self._how)

    def look_at(self, case: Case) -> None:
        while len(self._running) >= 2 * self._jobs:
            self._settle()
        self._running.append((case, self._pool.submit(_judged, case)))

    def finish(self) -> None:
        while self._running:
            self._settle()
        self._pool.shutdown()

    def _settle(self) -> None:
        case, future = self._running.pop(0)
        try:
            problems = future.result()
        except BrokenProcessPool:
            problems = self._died(case)
        for problem in problems:
            self._outcome.wrong.append(f"{case.what}: {problem}")
            print(f"wrong: {case.what}: {problem}", file=sys.stderr)
        if problems and len(self._outcome.kept) < _KEPT:
            self._outcome.kept.append(str(case.folder))
        else:
            shutil.rmtree(case.folder, ignore_errors=True)

    def _died(self, case: Case) -> list[str]:
        """Whose fault it was is not told: each that was running is looked at alone."""
        again = [case, *(other for other, _ in self._running)]
        self._running.clear()
        found = {}
        for one in again:
            self._pool = self._begin()
            try:
                found[one] = self._pool.submit(_judged, one).result()
            except BrokenProcessPool:
                found[one] = ["the process that opened it died"]
            if one is not case:
                self._outcome.wrong += [f"{one.what}: {problem}" for problem in found[one]]
        self._pool = self._begin()
        return found[case]


class Replay:
    """One recording, event by event, and the folders that crashes leave of it."""

    def __init__(self, scratch: Path, judges: Callable[[Case], None], outcome: Outcome) -> None:
        self._disk = Disk()
        self._scratch = scratch
        self._look_at = judges
        self._outcome = outcome
        self._marks = 0  # the handle by which they are written
        self._begun = self._done = self._cases = 0
        self._judged: tuple[int, int] | None = None  # marks at the last sync that was judged
        self._stale = False  # something became durable since

    def run(self, trace: Path, root: Path, instants: list[int], seed: int, *, syncs: bool) -> None:
        """``instants`` are the events after which a subset of what is not synced is tried."""
        wanted = sorted(instants)
        for number, event in enumerate(events(trace, root)):
            if event.kind == Kind.OPEN and event.data == _MARKS.encode():
                self._marks = event.handle
            if self._is_mark(event):
                continue
            if syncs and event.kind == Kind.SYNC:
                self._at_sync()
            self._stale = self._disk.apply(event) or self._stale
            while wanted and wanted[0] <= number:
                self._subset(random.Random(seed * 1_000_003 + len(wanted)))
                wanted.pop(0)
        if syncs:
            self._at_sync()

    def _is_mark(self, event: Event) -> bool:
        if event.handle != self._marks or event.kind != Kind.WRITE:
            return False
        self._begun += event.data.count(_BEGUN)
        self._done += event.data.count(_DONE)
        return True

    def _at_sync(self) -> None:
        """What is durable just before a sync, when the most was acknowledged on it."""
        at = (self._begun, self._done)
        if self._begun and (self._stale or at != self._judged):
            self._judged, self._stale = at, False
            self._outcome.syncs += 1
            deep = self._outcome.syncs % _DEEP_EVERY == 0
            self._case(f"sync {self._outcome.syncs}", self._disk.contents(), deep=deep)

    def _subset(self, rng: random.Random) -> None:
        if not self._begun:
            return
        if rng.random() < 0.1:  # killed, and not the power: all that was written is there
            self._outcome.kills += 1
            self._case(f"kill {self._outcome.kills}", self._disk.seen(), deep=True)
        else:
            self._outcome.subsets += 1
            self._case(f"subset {self._outcome.subsets}", self._disk.contents(rng), deep=True)

    def _case(self, what: str, contents: Contents, *, deep: bool) -> None:
        self._cases += 1
        folder = self._scratch / str(self._cases)
        folder.mkdir()
        lay_out(contents, folder)
        flying = self._begun > self._done
        told = f"{what}, {self._done} done{', one in flight' if flying else ''}"
        self._look_at(Case(folder, told, self._done, flying, deep))


def run(
    folder: Path,
    *,
    subject: str = "index",
    operations: int,
    subsets: int,
    seed: int = 1,
    jobs: int = 1,
    syncs: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Record a run in an empty ``folder``, and judge what crashes leave of it."""
    root, trace = folder / "root", folder / "trace"
    root.mkdir()
    progress("crash: recording")
    command = [sys.executable, "-m", "bench.crash.drive", subject, root, seed, operations]
    record([str(word) for word in command], root, trace, recorder(folder))
    outcome = Outcome(operations=operations, events=sum(1 for _ in events(trace, root)))
    rng = random.Random(seed)
    instants = [rng.randrange(outcome.events) for _ in range(subsets)]
    scratch = folder / "cases"
    scratch.mkdir()
    judges = _Judges(subject, seed, operations, jobs, outcome)

    def look_at(case: Case) -> None:
        progress(f"crash: {case.what} of {operations}, {len(outcome.wrong)} wrong")
        judges.look_at(case)

    try:
        Replay(scratch, look_at, outcome).run(trace, root, instants, seed, syncs=syncs)
    finally:
        judges.finish()
    return outcome


def _scratch() -> str | None:
    """A folder in memory where there is one: thousands of folders are made."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench crash",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add("subject", nargs="?", choices=list(SUBJECTS), default="index")
    add("--operations", type=int, default=1000)
    add("--subsets", type=int, default=1000, help="of unsynced pages (default: 1000)")
    add("--no-syncs", action="store_true", help="leave out the sync boundaries")
    add("--seed", type=int, default=1)
    add("--jobs", type=int, default=os.cpu_count(), help="processes that open what is left")
    add("--folder", type=Path, default=_scratch(), help="where all of it is made")
    add("--keep", action="store_true", help="leave what was found wrong")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="memdb-crash-"))
    try:
        outcome = run(
            folder,
            subject=options.subject,
            operations=options.operations,
            subsets=options.subsets,
            seed=options.seed,
            jobs=max(1, options.jobs),
            syncs=not options.no_syncs,
            progress=report.progress,
        )
    except CannotRecord as error:
        report.progress("")
        print(f"bench crash: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    report.progress("")
    told = {**vars(outcome), "wrong": outcome.wrong[:20], "wrongs": len(outcome.wrong)}
    told["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(told, indent=2))
    return 0 if outcome.healthy else 1
