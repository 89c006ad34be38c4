"""Erasure: is anything left, how long does it take, and what does a killed one leave?

    python -m bench erase                    the first three, with 1,000 canaries
    python -m bench erase --only canaries    the canary test: find all, erase half, find none of it
    python -m bench erase --only person      one person (100 memories) in a large store, timed
    python -m bench erase --only kills --kills 200
    python -m bench erase --only peers       what other stores keep of what was deleted

*Kills*: a process erases half of some canaries and is killed with SIGKILL at the n-th thing it does
to the disk, before or after it (``dying.py``), for n all over the erasure, or at a random instant.
The next process must find a database that opens, passes ``check``, and finishes what was begun:
none of the erased left, or all still there where the commit had not come.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import canaries, dying, erase_peers, report
from bench.canaries import Clock, Planted
from bench.erase_peers import PEERS

_PARTS = ("canaries", "person", "kills")
_ASKED_FOR = ("peers",)  # not run unless named: they have to be installed
_PERSON = 100
_DIM = 384
_BATCH = 2_048
_RETURN_S = 1.0
_SCRUB_S = 10.0


# --- one person in a large store --------------------------------------------------------------


def person(root: Path, count: int) -> dict[str, Any]:
    """Erase 100 memories about one person out of ``count``; seconds of each stage."""
    rng = np.random.default_rng(7)
    vocabulary = canaries.words(20_000, rng)
    with memdb.open(root / "db", embedder="none") as db:
        for start in range(0, count, _BATCH):
            report.progress(f"{start:,} of {count:,} memories")
            size = min(_BATCH, count - start)
            matrix = rng.standard_normal((size, _DIM)).astype(np.float32)
            texts = rng.integers(0, len(vocabulary), (size, 12))
            db.remember_many(
                [
                    {
                        "text": " ".join(vocabulary[word] for word in texts[n].tolist()),
                        "vector": matrix[n],
                        "external_id": f"m{start + n}",
                        "tags": [f"t{n % 50}"],
                        "about": ["Ana"] if (start + n) % (count // _PERSON) == 0 else [],
                    }
                    for n in range(size)
                ],
                batch=_BATCH,
            )
        db._maintenance.drain()
        size = db.stats()["bytes"]["total"]
        started = time.monotonic()
        receipt = db.erase(about="Ana")
        returned = time.monotonic() - started
        hidden = db.count({"about": "Ana"}) == 0
        receipt.wait(300)
        scrubbed = time.monotonic() - started
        sound = db.check()["ok"]
    return {
        "memories": count,
        "bytes": size,
        "erased": receipt.counts["memories"],
        "hidden_at_once": hidden,
        "returns_s": round(returned, 3),
        "scrubbed_s": round(scrubbed, 3),
        "sound": sound,
        "passed": hidden and sound and returned < _RETURN_S and scrubbed < _SCRUB_S,
    }


# --- kills ------------------------------------------------------------------------------------


@dataclass
class Kills:
    """What the rounds counted; a healthy run has zeros below ``not_begun``."""

    rounds: int = 0
    events: int = 0
    at_random: int = 0
    survived: int = 0
    finished: int = 0
    not_begun: int = 0
    failed_opens: int = 0
    failed_checks: int = 0
    unfinished: int = 0
    residues: int = 0
    lost: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not (
            self.failed_opens or self.failed_checks or self.unfinished or self.residues or self.lost
        )


def kills(root: Path, rounds: int, seed: int = 1, count: int = 40) -> Kills:
    """Kill an erasure at ``rounds`` points, each on a fresh copy of one database; one in four of
    them at a random instant and not at a step."""
    outcome = Kills()
    template = root / "template"
    empty = root / "empty"
    empty.mkdir()
    dying.run(Planting(count, seed), empty, template, 0)
    clock = Clock()
    planted = [Planted(**one) for one in json.loads((template / "planted.json").read_text())]
    began = time.monotonic()
    outcome.events = dying.run(victim, template, root / "dry", 0) or 0
    took_s = time.monotonic() - began
    rng = random.Random(seed)
    for number in range(rounds):
        report.progress(f"{number} of {rounds} kills")
        folder = root / f"round{number}"
        at, after_s = 0, None
        if number % 4 == 3:
            after_s = rng.random() * took_s
        else:  # one in each stretch, so that the points are spread over all of it
            low = 1 + number * outcome.events // rounds
            at = rng.randint(low, max(low, (number + 1) * outcome.events // rounds))
        while dying.run(victim, template, folder, at, after_s) is not None:
            # The erasure took fewer steps than the one that was counted: it is cut by time.
            outcome.survived += 1
            shutil.rmtree(folder)
            at = rng.randint(1, max(1, (at or outcome.events) - 1))
            after_s = None
        outcome.rounds += 1
        outcome.at_random += after_s is not None
        _judge(folder, planted, clock, outcome)
        shutil.rmtree(folder)
    return outcome


class Planting:
    """``plant`` with its arguments, in a process of its own."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __call__(self, root: Path, at: int, begin: Callable[[], None]) -> int:
        begin()
        return plant(root, self.count, self.seed)


def _judge(folder: Path, planted: list[Planted], clock: Clock, outcome: Kills) -> None:
    erased, kept = planted[::2], planted[1::2]
    try:
        db = memdb.open(folder / "db", embedder="none", clock=clock)
    except memdb.MemdbError as error:
        outcome.failed_opens += 1
        outcome.messages.append(f"open: {error}")
        return
    with db:
        receipts = db.receipts()
        try:
            for receipt in receipts:
                receipt.wait(60)
        except memdb.MemdbError as error:
            outcome.unfinished += 1
            outcome.messages.append(f"unfinished: {error}, {db._maintenance.last_error}")
        checked = db.check()
        if not checked["ok"]:
            outcome.failed_checks += 1
            outcome.messages += checked["problems"][:3]
        intact = sum(canaries._intact(db, one) for one in kept)
        if receipts:
            outcome.finished += 1
            found = memdb.scan_erased(
                folder / "db", [one.canary() for one in erased], fragments=True
            )
            outcome.residues += len(found.found)
            outcome.messages += [str(one) for one in found.found[:3]]
        else:
            outcome.not_begun += 1
            intact += sum(canaries._intact(db, one) for one in erased) - len(erased)
        if intact != len(kept):
            outcome.lost += 1
            outcome.messages.append(f"{intact} of {len(kept)} kept canaries are intact")


def plant(root: Path, count: int, seed: int) -> int:
    """The database that is erased in, and what is in it."""
    dying.small_steps()
    with memdb.open(root / "db", embedder="none", clock=Clock()) as db:
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((count, canaries.DIM)).astype(np.float32)
        planted = []
        for n, word in enumerate(canaries.words(count, rng)):
            kind = ("single", "single", "fact", "fact", "sample", "sample", "blob", "blob")[n % 8]
            one = Planted(kind, word, vectors[n])
            canaries._write_one(db, one, root)
            planted.append(one)
        db._maintenance.drain()
    fields = [
        {**vars(one), "vector": None if one.vector is None else one.vector.tolist()}
        for one in planted
    ]
    (root / "planted.json").write_text(json.dumps(fields))
    return 0


def victim(root: Path, at: int, begin: Callable[[], None]) -> int:
    """Erase half, beside a snapshot, counting what is done to the disk; die at half-step ``at``
    (0: live)."""
    dying.small_steps()
    planted = [Planted(**one) for one in json.loads((root / "planted.json").read_text())]
    with memdb.open(root / "db", embedder="none", clock=Clock()) as db:
        db.snapshot(root / "snapshot")
        counted = dying.count_or_die(db, at)
        begin()
        db.erase([one.erase_by for one in planted[::2]]).wait(60)
        return counted()


# --- the command --------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench erase",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=(*_PARTS, *_ASKED_FOR))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="STORE")
    parser.add_argument("--install", action="store_true", help="install peers that are not there")
    parser.add_argument("--canaries", type=int, default=1_000)
    parser.add_argument("--fillers", type=int, default=5_000)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="accepted; the result is JSON anyway")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {}
    passed = True
    for part in _PARTS if options.only is None else (options.only,):
        with tempfile.TemporaryDirectory(prefix="memdb-erase-") as folder:
            result[part], well = _measured(part, Path(folder), options)
            passed = passed and well
    report.progress("")
    report.save(None, "erase", arguments, {**result, "passed": passed})
    print(json.dumps({**result, "passed": passed}, indent=2))
    return 0 if passed else 1


def _measured(part: str, root: Path, options: argparse.Namespace) -> tuple[Any, bool]:
    if part == "canaries":
        found = canaries.trial(
            root, count=options.canaries, fillers=options.fillers, seed=options.seed
        )
        shown = {
            **vars(found),
            "forms_before": sorted(found.forms_before),
            "residues": [str(one) for one in found.residues[:20]],
            "restored_residues": [str(one) for one in found.restored_residues[:20]],
            "scan_s": round(found.scan_s, 2),
            "erase_s": round(found.erase_s, 3),
            "scrub_s": round(found.scrub_s, 2),
        }
        return shown, found.passed
    if part == "peers":
        rows = erase_peers.trial(
            root, options.canaries, options.peers, seed=options.seed, install=options.install
        )
        return rows, all("unavailable" not in row for row in rows)
    if part == "person":
        timed = person(root, options.memories)
        return timed, bool(timed["passed"])
    rounds = kills(root, options.kills, options.seed)
    return {**vars(rounds), "messages": rounds.messages[:20]}, rounds.healthy


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
