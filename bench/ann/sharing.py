"""``python -m bench ann processes``: one writer, several readers, an oracle; with ``--kills``, a
writer that is killed again and again while it links, takes out, reuses slots, and goes down to
smaller profiles.

A writer adds, replaces and removes vectors that anybody can compute from its log; it logs what it
is about to do, and that it is done. Readers compare every answer with what the log allowed at that
time: only ids that were there, at the distances of their vectors, as many as there are, and the
vector that was asked for itself. After each kill the index is opened and compared as a whole: what
was in flight happened wholly or not at all. Thresholds are small, so that every kind of work in
the background goes on all the time. Every third writer converts the index while it writes, and is
killed while it does; when there is no smaller profile left, another index is begun.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from memdb import settings

DIM, IDS, K = 32, 1500, 5
PROFILES = ("exact", "standard", "compact")
"""From the most precise to the smallest that can have a graph."""
_LOST = {"exact": 0.0, "standard": 0.001, "compact": 0.06}  # of a vector's squared length
_OFF = {"exact": 0.001, "standard": 0.05, "compact": 0.25}  # of a squared distance, plus one
_PARAMS = {"R": 12, "L_build": 32}
_KILLS_OF_ONE = 24  # of writers of one index
_DEMOTES_EVERY = 3
_DEMOTED = 0.25  # of demotions are let end
_AFTER_S = 0.1
NOBODY = 2**64 - 1

Floats = np.ndarray[Any, np.dtype[np.float32]]
Placed = tuple[int, int]  # which operation gave an id its vector, and as which of its rows


def vectors_of(operation: int, count: int) -> Floats:
    """What an operation writes; float16 holds it as it is."""
    rng = np.random.default_rng(operation)
    return rng.standard_normal((count, DIM)).astype(np.float16).astype(np.float32)


def work_in_small_steps() -> None:
    """A few dozen vectors are worth encoding, linking and taking out."""
    settings.FRESH_VECTORS_MAX = 64
    settings.INDEX_ENCODE_DIRECTLY_AT = 32
    settings.GRAPH_REAP_AT = 32
    settings.GRAPH_RETIRED_MOST = 256
    settings.GRAPH_COMMIT_AT = 96
    settings.GRAPH_BUILD_AT = 256


def opened(path: Path, *, profile: str | None = None, **more: Any) -> memdb.VectorIndex:
    """``profile`` is that of an index which is made."""
    if more.get("readonly"):
        return memdb.VectorIndex(path, **more)
    return memdb.VectorIndex(
        path, dim=DIM, metric="l2", kind="ssd", profile=profile, params=_PARAMS, **more
    )


def alike(found: Any, wanted: Any, profile: str) -> bool:
    """Whether vectors are those that were written, as far as the profile keeps them."""
    lost = ((found - wanted) ** 2).sum(axis=1)
    return bool((lost <= _LOST[profile] * (wanted**2).sum(axis=1)).all())


def near(distances: Any, right: Any, profile: str) -> bool:
    """Whether squared distances are those of the vectors, as far as the profile keeps them."""
    return bool((np.abs(distances - right) <= _OFF[profile] * (1 + right)).all())


# --- the log: what must be in the index ---------------------------------------------------------


@dataclass
class Held:
    """Ids and where their vectors come from, after the last that was done; ``flying``: after the
    one that was begun, where there is one."""

    done: dict[int, Placed] = field(default_factory=dict)
    flying: dict[int, Placed] | None = None
    operations: int = 0
    profile: int = 0  # number of the smallest that vectors may have been reduced to
    demoting: bool = False
    demoted: int = 0
    at: int = 0  # bytes of the log that were read

    def read(self, log: Path) -> Held:
        """Go on reading; the last line may be torn."""
        with open(log, "rb") as handle:
            handle.seek(self.at)
            content = handle.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.at += len(whole)
        for line in whole.splitlines():
            word, *rest = json.loads(line)
            if word == "begin":
                self.flying = applied(self.done, *rest)
            elif word == "done" and self.flying is not None:
                self.done, self.flying = self.flying, None
                self.operations += 1
            elif word == "dropped":
                self.flying = None
            elif word in ("demoting", "demoted"):
                self.profile, self.demoting = rest[0], word == "demoting"
                self.demoted += word == "demoted"
            elif word == "ready":
                self.demoting = False
        return self

    def possible(self, number: int) -> set[Placed | None]:
        found = {self.done.get(number)}
        return found if self.flying is None else found | {self.flying.get(number)}


def applied(
    held: dict[int, Placed], operation: int, kind: str, ids: list[int]
) -> dict[int, Placed]:
    new = dict(held)
    for row, number in enumerate(ids):
        if kind == "add":
            new[number] = (operation, row)
        else:
            new.pop(number, None)
    return new


# --- processes ----------------------------------------------------------------------------------


def write(path: Path, log: Path, seed: int, first: int, demote: int | None = None) -> None:
    """Write until killed, from operation ``first`` on, and meanwhile go down to a profile."""
    work_in_small_steps()
    rng = random.Random(seed)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)

    def say(*words: Any) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

    def convert(index: memdb.VectorIndex, level: int) -> None:
        say("demoting", level)
        index.convert(PROFILES[level])
        say("demoted", level)

    with opened(path) as index:
        say("ready")
        for operation in range(first, 1 << 40):
            ids = rng.sample(range(IDS), rng.choice((1, 7, 60, 200)))
            kind = "add" if rng.random() < 0.75 else "remove"
            say("begin", operation, kind, ids)
            if kind == "add":
                index.add(np.array(ids), vectors_of(operation, len(ids)))
            else:
                index.remove(np.array(ids))
            say("done")
            if demote is not None:
                threading.Thread(target=convert, args=(index, demote), daemon=True).start()
                demote = None
            elif rng.random() < 0.1:
                index.wait()


def read(path: Path, log: Path, seed: int, told: Path) -> None:
    """Ask until killed; tells how many answers were right, and which were wrong."""
    rng = random.Random(seed)
    held = Held().read(log)
    out = os.open(told, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with opened(path, readonly=True) as index:
        while True:
            before = held.read(log)
            earlier = [dict(before.done), before.flying]
            number = rng.randrange(IDS)
            query = vectors_of(rng.randrange(1 << 30), 1)[0]
            placed = before.done.get(number)
            if placed is not None:
                query = vector_of(placed)
            own = placed is not None and rng.random() < 0.5
            found, distances = index.search(query, K, exact=own)
            after = held.read(log)
            problem = _problem(
                found[0], distances[0], query, earlier, after, number if own else None
            )
            said = ["right", None] if problem is None else ["wrong", problem]
            os.write(out, json.dumps(said).encode() + b"\n")


_known: dict[int, Floats] = {}


def vector_of(placed: Placed) -> Floats:
    operation, row = placed
    if operation not in _known:
        if len(_known) > 4000:
            _known.clear()
        _known[operation] = vectors_of(operation, 200)
    found: Floats = _known[operation][row]
    return found


def _problem(
    found: Any, distances: Any, query: Floats, earlier: list[Any], after: Held, own: int | None
) -> str | None:
    """What is wrong with an answer, given what was there before it and after it."""
    states = [state for state in (*earlier, after.done, after.flying) if state is not None]
    ids = [int(one) for one in found if int(one) != NOBODY]
    if len(ids) != len(set(ids)):
        return "an id twice"
    if len(ids) < min(K, min(len(state) for state in states)) and after.operations == 0:
        return "too few"
    quiet = earlier[0] == after.done and earlier[1] is None and after.flying is None
    for number, distance in zip(ids, distances.tolist(), strict=False):
        placed = {state.get(number) for state in states} - {None}
        right = [float(((vector_of(one) - query) ** 2).sum()) for one in placed]
        profile = PROFILES[after.profile]
        if quiet and not any(near(distance, one, profile) for one in right):
            return f"id {number} is not at its distance"
    if quiet and own is not None and not (ids and near(distances[0], 0.0, PROFILES[after.profile])):
        return f"id {own} is not found by its own vector"
    if quiet and len(ids) != min(K, len(after.done)):
        return "not as many as there are"
    return None


def compare(path: Path, held: Held) -> list[str]:
    """Open the index and hold all of it against the log; settles what was in flight."""
    problems: list[str] = []
    with opened(path) as index:
        for state in (held.flying, held.done):
            if state is None:
                continue
            ids = sorted(state)
            if len(index) != len(ids) or not all(number in index for number in ids):
                continue
            wanted = np.array([vector_of(state[number]) for number in ids])
            profile = index.stats()["profile"]
            if ids and not alike(index.get(np.array(ids)), wanted, profile):
                continue
            held.done = state
            break
        else:
            problems.append("the index holds neither what was there nor what was being written")
        held.flying = None
        problems += _unfound(index, held)
    return problems


def _unfound(index: memdb.VectorIndex, held: Held) -> list[str]:
    """Vectors of the index that do not find themselves."""
    problems, profile = [], index.stats()["profile"]
    ids = sorted(held.done)
    for number in random.Random(held.operations).sample(ids, min(40, len(ids))):
        for exact in (False, True):  # a walk may miss what a look at all may not
            found, distances = index.search(vector_of(held.done[number]), 1, exact=exact)
            if len(found) and near(distances[0, 0], 0.0, profile):
                break
        else:
            problems.append(f"id {number} is not found by its own vector")
    return problems


# --- the controller -----------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run counted; a healthy one has no ``wrong`` and no ``failed_opens``."""

    kills: int = 0
    killed_demoting: int = 0
    demotions: int = 0
    indexes: int = 0
    operations: int = 0
    answers: int = 0
    failed_opens: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.wrong and not self.failed_opens


def run(
    folder: Path,
    *,
    readers: int,
    kills: int = 0,
    seconds: float = 0.0,
    seed: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Kill the writer ``kills`` times, or let it write for so many ``seconds``; readers stay."""
    rng, outcome = random.Random(seed), Outcome()
    work_in_small_steps()
    while outcome.kills < max(1, kills):
        life = _Life(folder / str(outcome.indexes), readers, rng, outcome)
        try:
            while not life.is_over and outcome.kills < max(1, kills):
                progress(f"processes: {outcome.kills}/{kills} kills")
                life.kill(seconds)
        finally:
            life.end()
    return outcome


class _Life:
    """One index, its log and its readers, while one writer after the other is killed."""

    def __init__(self, folder: Path, readers: int, rng: random.Random, outcome: Outcome) -> None:
        folder.mkdir(parents=True)
        self._path, self._log = folder / "index", folder / "log"
        self._log.touch()
        self._rng, self._outcome, self._held = rng, outcome, Held()
        outcome.indexes += 1
        with opened(self._path, profile=PROFILES[0]):
            pass
        self._kills = self._level = 0
        self._told = [folder / f"reader-{number}" for number in range(readers)]
        self._readers = [
            _forked(partial(read, self._path, self._log, rng.randrange(1 << 30), told))
            for told in self._told
        ]

    @property
    def is_over(self) -> bool:
        """Whether there was enough, or there is no smaller profile."""
        return self._kills >= _KILLS_OF_ONE or self._level == len(PROFILES) - 1

    def kill(self, seconds: float) -> None:
        """Let a writer write for so long, or, if 0, a little; kill it; look at what it leaves."""
        rng, outcome, log = self._rng, self._outcome, self._log
        turn, seed = self._kills, rng.randrange(1 << 30)
        demotes = not seconds and turn % _DEMOTES_EVERY == _DEMOTES_EVERY - 1
        demote = self._level + 1 if demotes else None
        size = log.stat().st_size
        writer = _forked(lambda: write(self._path, log, seed, 1 + turn * 1_000_000, demote))
        if demotes:
            word = b'["demoted"' if rng.random() < _DEMOTED else b'["demoting"'
            _wait_for_more(log, size, writer, word)
        else:
            _wait_for_more(log, size, writer, b'["done"]', times=rng.randint(1, 15))
        # The instant is the experiment. What is begun takes some tens of milliseconds.
        time.sleep(seconds or rng.random() * _AFTER_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(writer, signal.SIGKILL)
        _, status = os.waitpid(writer, 0)
        self._kills += 1
        outcome.kills += 1
        if not os.WIFSIGNALED(status):
            outcome.wrong.append("the writer ended by itself")
        _cut_torn_line(log)
        held = self._held.read(log)
        outcome.killed_demoting += held.demoting
        try:
            outcome.wrong += compare(self._path, held)
        except memdb.MemdbError as error:
            outcome.failed_opens += 1
            outcome.wrong.append(f"open: {error}")
        settled = json.dumps(["done" if _flew(log, held) else "dropped"])
        with open(log, "ab") as out:
            out.write(settled.encode() + b"\n")
        self._held = Held().read(log)
        if demote is not None and self._is_at(demote):
            self._level = demote
            outcome.demotions += 1

    def _is_at(self, level: int) -> bool:
        with opened(self._path, readonly=True) as index:
            return bool(index.stats()["profile"] == PROFILES[level])

    def end(self) -> None:
        """End the readers, and count what they told."""
        self._outcome.operations += self._held.operations
        for reader, told in zip(self._readers, self._told, strict=True):
            ended, _ = os.waitpid(reader, os.WNOHANG)
            if ended:
                self._outcome.wrong.append("a reader ended by itself")
            else:
                os.kill(reader, signal.SIGKILL)
                os.waitpid(reader, 0)
            lines = told.read_bytes().splitlines() if told.exists() else []
            said = [json.loads(line) for line in lines if line.endswith(b"]")]
            self._outcome.answers += sum(word == "right" for word, _ in said)
            self._outcome.wrong += [str(what) for word, what in said if word == "wrong"]


def _flew(log: Path, held: Held) -> bool:
    """Whether what was in flight when the writer was killed is in the index."""
    again = Held().read(log)
    return again.flying is not None and again.flying == held.done


def _forked(work: Callable[[], None]) -> int:
    """The process id of a child that does it, and need not import anything again."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except Exception:  # noqa: BLE001 - told, and seen by how the child ends
        traceback.print_exc()
    finally:
        os._exit(1)


def _wait_for_more(log: Path, size: int, writer: int, wanted: bytes, times: int = 1) -> None:
    """Until the writer has said so, or a minute has passed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not os.waitid(
        os.P_PID, writer, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        with open(log, "rb") as handle:
            handle.seek(size)
            if handle.read().count(wanted) >= times:
                return
        time.sleep(0.002)  # a poll of another process's file: there is no event to wait for


def _cut_torn_line(log: Path) -> None:
    content = log.read_bytes()
    os.truncate(log, content.rfind(b"\n") + 1)


def part(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Of ``python -m bench ann``; 0 when every answer was right."""
    folder = Path(tempfile.mkdtemp(dir=cache, prefix="run-"))
    try:
        outcome = run(
            folder,
            readers=options.readers,
            kills=options.kills,
            seconds=0 if options.kills else options.seconds,
            seed=options.seed,
            progress=report.progress,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.progress("")
    for line in outcome.wrong[:10]:
        print(f"wrong: {line}")
    print(
        f"{outcome.operations:,} operations, {outcome.answers:,} answers of {options.readers} "
        f"readers, {outcome.kills} kills ({outcome.killed_demoting} while demoting, "
        f"{outcome.demotions} demotions done, {outcome.indexes} indexes): "
        f"{len(outcome.wrong)} wrong, {outcome.failed_opens} failed to open"
    )
    return 0 if outcome.healthy else 1
