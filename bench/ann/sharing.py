"""``python -m bench ann processes``: one writer, several readers, an oracle; with ``--kills``, a
writer that is killed again and again while it links, takes out, and reuses slots.

A writer adds, replaces and removes vectors that anybody can compute from its log; it logs what it
is about to do, and that it is done. Readers compare every answer with what the log allowed at that
time: only ids that were there, at the distances of their vectors, as many as there are, and the
vector that was asked for itself. After each kill the index is opened and compared as a whole: what
was in flight happened wholly or not at all. Thresholds are small, so that every kind of work in
the background goes on all the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from memdb import settings

DIM, IDS, K = 32, 1500, 5
_PARAMS = {"R": 12, "L_build": 32}
_NOBODY = 2**64 - 1

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


def opened(path: Path, **more: Any) -> memdb.VectorIndex:
    if more.get("readonly"):
        return memdb.VectorIndex(path, **more)
    return memdb.VectorIndex(
        path, dim=DIM, metric="l2", kind="ssd", profile="exact", params=_PARAMS, **more
    )


# --- the log: what must be in the index ---------------------------------------------------------


@dataclass
class Held:
    """Ids and where their vectors come from, after the last that was done; ``flying``: after the
    one that was begun, where there is one."""

    done: dict[int, Placed] = field(default_factory=dict)
    flying: dict[int, Placed] | None = None
    operations: int = 0
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


def write(path: Path, log: Path, seed: int, first: int) -> None:
    """Write until killed, from operation ``first`` on."""
    work_in_small_steps()
    rng = random.Random(seed)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)

    def say(*words: Any) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

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
            if rng.random() < 0.1:
                index.wait()


def read(path: Path, log: Path, seed: int) -> None:
    """Ask until killed; says how many answers were right, and which were wrong."""
    rng = random.Random(seed)
    held = Held().read(log)
    with opened(path, readonly=True) as index:
        answers = 0
        while True:
            before = held.read(log)
            earlier = [dict(before.done), before.flying]
            number = rng.randrange(IDS)
            query = vectors_of(rng.randrange(1 << 30), 1)[0]
            placed = before.done.get(number)
            if placed is not None:
                query = _vector(placed)
            own = placed is not None and rng.random() < 0.5
            found, distances = index.search(query, K, exact=own)
            after = held.read(log)
            problem = _problem(
                found[0], distances[0], query, earlier, after, number if own else None
            )
            answers += 1
            if problem is not None:
                print(json.dumps(["wrong", problem]), flush=True)
            elif answers % 50 == 0:
                print(json.dumps(["right", 50]), flush=True)


_known: dict[int, Floats] = {}


def _vector(placed: Placed) -> Floats:
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
    ids = [int(one) for one in found if int(one) != _NOBODY]
    if len(ids) != len(set(ids)):
        return "an id twice"
    if len(ids) < min(K, min(len(state) for state in states)) and after.operations == 0:
        return "too few"
    quiet = earlier[0] == after.done and earlier[1] is None and after.flying is None
    for number, distance in zip(ids, distances.tolist(), strict=False):
        placed = {state.get(number) for state in states} - {None}
        right = [float(((_vector(one) - query) ** 2).sum()) for one in placed]
        near = any(abs(one - distance) < 1e-3 * (1 + one) for one in right)
        if quiet and not near:
            return f"id {number} is not at its distance"
    if quiet and own is not None and (not ids or distances[0] > 1e-3):
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
            wanted = np.array([_vector(state[number]) for number in ids])
            if ids and not np.array_equal(index.get(np.array(ids)), wanted):
                continue
            held.done = state
            break
        else:
            problems.append("the index holds neither what was there nor what was being written")
        held.flying = None
        ids = sorted(held.done)
        for number in random.Random(held.operations).sample(ids, min(40, len(ids))):
            found, distances = index.search(_vector(held.done[number]), 1)
            if not len(found) or distances[0, 0] > 1e-3:
                found, distances = index.search(_vector(held.done[number]), 1, exact=True)
                if distances[0, 0] > 1e-3:
                    problems.append(f"id {number} is not found by its own vector")
    return problems


# --- the controller -----------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run counted; a healthy one has no ``wrong`` and no ``failed_opens``."""

    kills: int = 0
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
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "index", folder / "log"
    log.touch()
    work_in_small_steps()
    with opened(path) as index:
        index.add(np.arange(0), np.zeros((0, DIM), np.float32))
    rng, outcome, held = random.Random(seed), Outcome(), Held()
    asking = [_start("read", path, log, seed + 100 + number) for number in range(readers)]
    try:
        for turn in range(max(1, kills)):
            progress(f"processes: {turn}/{kills} kills")
            size = log.stat().st_size
            writer = _forked(path, log, rng.randrange(1 << 30), 1 + turn * 1_000_000)
            _wait_for_more(log, size, writer)
            time.sleep(seconds if seconds else rng.random() * 0.8)  # the instant is the experiment
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)
            _, status = os.waitpid(writer, 0)
            outcome.kills += 1
            if not os.WIFSIGNALED(status):
                outcome.wrong.append("the writer ended by itself")
            _cut_torn_line(log)
            try:
                outcome.wrong += compare(path, held.read(log))
            except memdb.MemdbError as error:
                outcome.failed_opens += 1
                outcome.wrong.append(f"open: {error}")
            settled = json.dumps(["done" if _flew(log, held) else "dropped"])
            with open(log, "ab") as out:
                out.write(settled.encode() + b"\n")
            held = Held().read(log)
        outcome.operations = held.operations
    finally:
        for process in asking:
            process.kill()
            told, problems = process.communicate()
            lines = [json.loads(line) for line in told.splitlines() if line.endswith(b"]")]
            outcome.answers += sum(count for word, count in lines if word == "right")
            outcome.wrong += [str(what) for word, what in lines if word == "wrong"]
            if b"Error" in problems:
                outcome.wrong.append(problems.decode()[-300:])
    return outcome


def _flew(log: Path, held: Held) -> bool:
    """Whether what was in flight when the writer was killed is in the index."""
    again = Held().read(log)
    return again.flying is not None and again.flying == held.done


def _start(kind: str, *arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.ann.sharing", kind, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _forked(path: Path, log: Path, seed: int, first: int) -> int:
    """A writer's process id: of a child, which need not import anything again."""
    child = os.fork()
    if child:
        return child
    try:
        write(path, log, seed, first)
    except Exception:  # noqa: BLE001 - told, and seen by how the child ends
        traceback.print_exc()
    finally:
        os._exit(1)


def _wait_for_more(log: Path, size: int, writer: int) -> None:
    """Until the writer has done something, or a minute has passed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not os.waitid(
        os.P_PID, writer, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        with open(log, "rb") as handle:
            handle.seek(size)
            if b'["done"]' in handle.read():
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
        f"readers, {outcome.kills} kills: {len(outcome.wrong)} wrong, "
        f"{outcome.failed_opens} failed to open"
    )
    return 0 if outcome.healthy else 1


if __name__ == "__main__":
    _, where, log_of, number = sys.argv[1:]
    read(Path(where), Path(log_of), int(number))
