"""One external id, one text, one fact written by many at once: one wins, nobody is torn."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import memdb

WRITERS = 4
ROUNDS = 15


def at_once(work: Callable[[int], str], workers: int = WRITERS) -> list[str]:
    """What each worker reports, all having begun together."""
    gate = threading.Barrier(workers)
    found: list[str] = []

    def run(number: int) -> None:
        gate.wait()
        found.append(work(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == workers
    return found


def test_of_threads_with_one_external_id_exactly_one_inserts(db: memdb.Database) -> None:
    for round in range(ROUNDS):

        def write(number: int, name: str = f"x{round}") -> str:
            try:
                return db.remember(f"{name} by {number}", external_id=name).status
            except memdb.Conflict:
                return "conflict"

        assert Counter(at_once(write)) == {"inserted": 1, "conflict": WRITERS - 1}
    assert db.count() == ROUNDS
    assert db.check()["ok"]


def test_of_threads_that_skip_exactly_one_inserts_and_all_see_it(db: memdb.Database) -> None:
    def write(number: int) -> str:
        written = db.remember(f"by {number}", external_id="x", on_conflict="skip")
        return f"{written.status} {written.id}"

    found = at_once(write)
    assert Counter(one.split()[0] for one in found) == {"inserted": 1, "duplicate": WRITERS - 1}
    assert len({one.split()[1] for one in found}) == 1


def test_threads_that_replace_leave_one_memory_with_all_versions(db: memdb.Database) -> None:
    def write(number: int) -> str:
        return db.remember(f"by {number}", external_id="x", on_conflict="replace").status

    assert Counter(at_once(write)) == {"inserted": 1, "replaced": WRITERS - 1}
    memory = db.get(external_id="x")
    assert memory is not None
    assert [m.version for m in db.versions(memory.id)] == list(range(1, WRITERS + 1))
    assert db.count() == 1
    assert db.check()["ok"]


def test_of_threads_with_one_text_exactly_one_inserts(db: memdb.Database) -> None:
    for round in range(ROUNDS):
        found = at_once(lambda _, text=f"text {round}": db.remember(text).status)
        assert Counter(found) == {"inserted": 1, "duplicate": WRITERS - 1}
    assert db.count() == ROUNDS


def test_threads_that_set_one_fact_leave_one_timeline(db: memdb.Database) -> None:
    days = [f"2024-0{1 + number % 9}-{1 + number // 9:02d}" for number in range(40)]

    def write(number: int) -> str:
        for day in days[number::WRITERS]:
            db.profile.set("address", day, valid_from=day)
        return "done"

    at_once(write)
    versions = db.profile.versions("address")
    assert [m.data for m in versions] == sorted(days)
    for before, after in pairwise(versions):
        assert before.valid_to == after.valid_from
    assert db.profile["address"] == max(days)
    assert db.check()["ok"]


PROGRAM = f"""
import json, sys, memdb
me = sys.argv[2]
counts = {{}}
with memdb.open(sys.argv[1], embedder="none") as db:
    print("ready", flush=True)
    sys.stdin.readline()
    for round in range({ROUNDS}):
        try:
            told = db.remember(f"{{round}} by {{me}}", external_id=f"x{{round}}").status
        except memdb.Conflict:
            told = "conflict"
        counts["id " + told] = counts.get("id " + told, 0) + 1
        told = db.remember(f"the same text {{round}}").status
        counts["text " + told] = counts.get("text " + told, 0) + 1
        db.profile.set("address", me, valid_from=f"2024-01-{{1 + round:02d}}")
print(json.dumps(counts))
"""


def test_processes_agree_on_who_was_first(db: memdb.Database) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(db.path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    total: Counter[str] = Counter()
    for worker in workers:
        out, _ = worker.communicate(timeout=60)
        total.update(json.loads(out))
    assert total == {
        "id inserted": ROUNDS,
        "id conflict": 2 * ROUNDS,
        "text inserted": ROUNDS,
        "text duplicate": 2 * ROUNDS,
    }
    assert db.count({"kind": "note"}) == 2 * ROUNDS
    versions = db.profile.versions("address")
    for before, after in pairwise(versions):
        assert before.valid_to == after.valid_from
    assert versions[-1].valid_to is None
    assert db.check()["ok"]
