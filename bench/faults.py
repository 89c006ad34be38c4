"""SIGKILL under load: is anything acknowledged ever lost, and does the database always open?

    python -m bench faults --kills 500

Each round starts one to four processes that write, update, forget and read one database, kills
them at a random instant, reopens and compares with what they logged. A writer logs an intent
before each call and an acknowledgement after it, so that the state of every key is known except
for the one call in flight, which must have happened wholly or not at all. Writers also read each
other's acknowledged writes: a write must be visible to every process's next read.

In every third round the first process is a *maintainer*: it also compacts, and works its backlog
off in small steps, so that folding, merging, encoding and the swap of generations happen all the
time; it is killed while it does so, and the others write on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb import settings

DIM = 16
_BATCH = 20
_KEYS = 200
_MAINTAIN_EVERY = 3
_COMPACT_CHANCE = 0.1
_PRELOADED = ["bench.faults", "memdb.database", "memdb.opening"]


@dataclass
class Outcome:
    """What a run counted; a healthy run has zeros everywhere below ``operations``."""

    kills: int = 0
    rounds: int = 0
    operations: int = 0
    compactions: int = 0
    killed_compacting: int = 0
    lost: int = 0
    torn: int = 0
    unseen: int = 0
    failed_opens: int = 0
    failed_checks: int = 0
    worker_errors: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not (
            self.lost
            or self.torn
            or self.unseen
            or self.failed_opens
            or self.failed_checks
            or self.worker_errors
        )


# --- the worker: one process that writes and reads until it is killed -------------------------


def vector_of(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector that can be computed again from the text."""
    return np.random.default_rng(sum(text.encode())).standard_normal(DIM).astype(np.float32)


def work_in_small_steps() -> None:
    """Thresholds at which a few dozen writes give every kind of background work something to do."""
    small = {
        "FRESH_POSTINGS_MAX": 8,
        "FRESH_FILTERS_MAX": 8,
        "FRESH_FILTERS_LIMIT": 24,
        "FRESH_VECTORS_MAX": 64,
        "ENCODE_AT": 16,
    }
    small["ENCODE_DIRECTLY_AT"] = 10
    for name, value in small.items():
        setattr(settings, name, value)


def worker(path: Path, log: Path, seed: int, *, maintains: bool = False) -> None:
    """Write, update, forget and read forever, logging intents and acknowledgements."""
    rng = random.Random(seed)
    if maintains:
        work_in_small_steps()
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def say(*words: Any) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

    name = log.stem
    try:
        with memdb.open(path, embedder="none", source="bench") as db:
            count = 0
            while True:
                count += 1
                _one_operation(db, rng, name, count, say)
                if maintains and rng.random() < _COMPACT_CHANCE:
                    _compact(db, say)
                if count % 5 == 0:
                    _read_others(db, log, say)
    except BaseException as error:
        places = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(p.filename).name}:{p.lineno}" for p in reversed(places))
        say("error", f"{type(error).__name__}: {error} at {where}")
        raise


def _one_operation(db: memdb.Database, rng: random.Random, name: str, count: int, say: Any) -> None:
    key = f"{name}-{rng.randrange(_KEYS)}"
    text = f"{key} says {count} {rng.random()}"
    choice = rng.random()
    if choice < 0.6:
        say("begin", [[key, text]])
        db.remember(
            text, external_id=key, vector=vector_of(text), on_conflict="replace", tags=[name]
        )
    elif choice < 0.75:
        first = rng.randrange(_KEYS)
        pairs = [[f"{name}-{(first + i) % _KEYS}", f"batch {count} {i}"] for i in range(_BATCH)]
        say("begin", pairs)
        db.remember_many(
            [
                {"text": t, "external_id": k, "vector": vector_of(t), "tags": [name]}
                for k, t in pairs
            ],
            on_conflict="replace",
        )
    else:
        say("begin", [[key, None]])
        memory = db.get(external_id=key)
        if memory is not None:
            db.forget(ids=memory.id)
    say("ack")


def _compact(db: memdb.Database, say: Any) -> None:
    say("compacting")
    try:
        db.compact()
    except memdb.LockHeld:
        say("refused")
    else:
        say("compacted")


def _read_others(db: memdb.Database, own: Path, say: Any) -> None:
    """Every other writer's last acknowledged operation is visible here."""
    for other in own.parent.glob("*.log"):
        if other == own:
            continue
        before = replay(other.read_bytes())
        found = {key: db.get(external_id=key) for key in list(before.state)[-5:]}
        after = replay(other.read_bytes())
        for key, memory in found.items():
            text = None if memory is None else memory.text
            possible = {before.state[key], after.state.get(key)}
            possible |= set(before.flying.get(key, ())) | set(after.flying.get(key, ()))
            possible |= set(after.history.get(key, ())[len(before.history.get(key, ())) :])
            if text not in possible:
                say("unseen", key)


# --- the model: what a log says the database must hold ----------------------------------------


@dataclass
class Model:
    """Keys and their text after the last acknowledgement; ``flying``: the call cut short."""

    state: dict[str, str | None] = field(default_factory=dict)
    history: dict[str, list[str | None]] = field(default_factory=dict)
    flying: dict[str, list[str | None]] = field(default_factory=dict)
    operations: int = 0
    unseen: int = 0
    compactions: int = 0
    compacting: bool = False
    errors: list[str] = field(default_factory=list)


def replay(content: bytes) -> Model:
    """Read a log, whose last line may be torn."""
    model = Model()
    pending: list[list[Any]] | None = None
    for line in content.split(b"\n")[:-1]:
        word, *rest = json.loads(line)
        if word == "begin":
            pending = rest[0]
        elif word == "ack" and pending is not None:
            model.operations += 1
            for key, text in pending:
                model.state[key] = text
                model.history.setdefault(key, []).append(text)
            pending = None
        elif word == "unseen":
            model.unseen += 1
        elif word in ("compacting", "compacted", "refused"):
            model.compacting = word == "compacting"
            model.compactions += word == "compacted"
        elif word == "error":
            model.errors.append(str(rest[0]))
    for key, text in pending or ():
        model.flying.setdefault(key, []).append(text)
    return model


def verify(path: Path, logs: list[Path], outcome: Outcome, *, full_check: bool) -> None:
    """Open the database and hold it against the logs."""
    try:
        db = memdb.open(path, embedder="none")
    except memdb.MemdbError as error:
        outcome.failed_opens += 1
        outcome.messages.append(f"open: {error}")
        return
    with db:
        for log in logs:
            _verify_log(db, replay(log.read_bytes()), outcome)
        if full_check:
            report = db.check()
            if not report["ok"]:
                outcome.failed_checks += 1
                outcome.messages.extend(report["problems"][:5])


def _verify_log(db: memdb.Database, model: Model, outcome: Outcome) -> None:
    applied: set[bool] = set()
    for key in model.state.keys() | model.flying.keys():
        memory = db.get(external_id=key)
        text = None if memory is None else memory.text
        settled, flying = model.state.get(key), model.flying.get(key)
        if flying and text != settled:
            applied.add(True)
            if text != flying[-1]:
                outcome.lost += 1
                outcome.messages.append(f"{key}: neither the settled nor the flying text")
        elif flying and settled != flying[-1]:
            applied.add(False)
        elif text != settled:
            outcome.lost += 1
            outcome.messages.append(f"{key}: an acknowledged write is missing")
        if text is not None:
            hits = db.recall(vector=vector_of(text), mode="vector", k=1, where={"external_id": key})
            if not hits or hits[0].text != text:
                outcome.lost += 1
                outcome.messages.append(f"{key}: its vector does not find it")
    if len(applied) > 1:
        outcome.torn += 1
        outcome.messages.append("a batch was applied in part")


# --- the controller ---------------------------------------------------------------------------


def run(
    kills: int, *, seed: int = 1, progress: Any = None, maintain_every: int = _MAINTAIN_EVERY
) -> Outcome:
    """Kill at least ``kills`` processes, in rounds of one to four on one database."""
    rng = random.Random(seed)
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "logs").mkdir()
        database = root / "db"
        memdb.open(database, embedder="none").close()
        logs: list[Path] = []
        while outcome.kills < kills:
            count = rng.randint(1, 4)
            fresh = [root / "logs" / f"r{outcome.rounds}w{i}.log" for i in range(count)]
            _round(database, fresh, rng, maintained=outcome.rounds % maintain_every == 0)
            logs.extend(fresh)
            outcome.kills += count
            outcome.rounds += 1
            verify(database, fresh, outcome, full_check=outcome.rounds % 10 == 0)
            for log in fresh:
                model = replay(log.read_bytes())
                outcome.operations += model.operations
                outcome.unseen += model.unseen
                outcome.compactions += model.compactions
                outcome.killed_compacting += model.compacting
                outcome.worker_errors += len(model.errors)
                outcome.messages.extend(model.errors)
                log.rename(log.with_suffix(".old"))
            if progress is not None:
                progress(min(outcome.kills, kills), kills)
        verify(database, [log.with_suffix(".old") for log in logs], outcome, full_check=True)
    return outcome


def _round(database: Path, logs: list[Path], rng: random.Random, *, maintained: bool) -> None:
    """Start the writers, let them get going, kill them one after the other.

    A maintainer starts first, so that it gets the lease, and is killed while it compacts.
    """
    processes: list[BaseProcess] = []
    for place, log in enumerate(logs):
        kind = "maintainer" if maintained and not place else "worker"
        processes.append(_start(kind, database, log, place))
        if kind == "maintainer":
            _wait_for(processes, [log], lambda content: b'["ack"]' in content)
    _wait_for(processes, logs, lambda content: b'["ack"]' in content)
    if maintained:
        seen = logs[0].read_bytes().count(b'["compacting"]') if logs[0].exists() else 0
        _wait_for(processes, logs[:1], lambda content: content.count(b'["compacting"]') > seen)
        time.sleep(rng.random() * 0.03)
        _kill(processes.pop(0))
    rng.shuffle(processes)
    for process in processes:
        time.sleep(rng.random() * 0.25)  # the random instant is the experiment
        _kill(process)


def _start(kind: str, database: Path, log: Path, seed: int) -> BaseProcess:
    """A writer, forked where that is possible from a server that has imported memdb and opened
    nothing: importing takes longer than most writers live."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(_PRELOADED)
        process: BaseProcess = processes.Process(
            target=_silent_worker, args=(database, log, seed, kind), daemon=True
        )
    else:
        spawned = multiprocessing.get_context("spawn")
        process = spawned.Process(
            target=_silent_worker, args=(database, log, seed, kind), daemon=True
        )
    process.start()
    return process


def _silent_worker(database: Path, log: Path, seed: int, kind: str) -> None:
    """What a worker has to say is in its log."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    worker(database, log, seed, maintains=kind == "maintainer")


def _wait_for(
    processes: list[BaseProcess], logs: list[Path], reached: Callable[[bytes], bool]
) -> None:
    """Until every log says so, or a process died of itself, or thirty seconds passed."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(log.exists() and reached(log.read_bytes()) for log in logs):
            return
        if not all(process.is_alive() for process in processes):
            return
        time.sleep(0.002)  # a poll of other processes' files: there is no event to wait for


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{total} kills")

    outcome = run(options.kills, seed=options.seed, progress=show)
    result = {
        **{k: v for k, v in vars(outcome).items() if k != "messages"},
        "seconds": round(time.monotonic() - started, 1),
        "messages": outcome.messages[:20],
    }
    print(json.dumps(result, indent=2))
    return 0 if outcome.healthy else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
