"""A disk budget: it holds while memories come, nothing protected goes, and kills cost nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memdb
from bench.forgetting import year
from memdb import BudgetExceeded
from memdb.retention import Decay, cleaning, room, usage
from memdb.storage.store import Store
from tests.memdb.clock import Clock, unit

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "lo")]


def items() -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(5)
    number = 0
    while True:
        number += 1
        text = " ".join(rng.choice(WORDS, 12)) + f" number{number}"
        yield {"text": text, "kind": "event", "stream": "talk"}


def large_items() -> Iterator[dict[str, Any]]:
    """Of some 4 KB each, which do not compress."""
    rng = np.random.default_rng(6)
    for item in items():
        yield {**item, "text": item["text"] + " " + rng.bytes(2_000).hex()}


def test_du_never_exceeds_the_budget_while_memories_come_every_day() -> None:
    found = year.run(large_items(), 4_000_000, days=10, each_day=60, embedder="none")
    assert found["du over budget"] == 0
    assert found["protected lost"] == 0
    assert found["sound"]
    assert 0 < found["kept"] < found["written"] == 600
    assert found["du looks"] > 10


def test_a_write_that_cannot_fit_is_refused_and_nothing_is_lost(
    db: memdb.Database, clock: Clock
) -> None:
    written = [one.id for one in db.remember_many([{"text": "kept", "pinned": True}] * 1)]
    db.settings.disk_budget = 500_000
    with pytest.raises(BudgetExceeded):
        db.remember("x" * 900_000)
    assert [memory.id for memory in db.iter()] == written
    db.settings.disk_budget = None
    db.remember("x" * 900_000)
    assert db.count() == 2


def test_nothing_goes_for_a_budget_that_holds(db: memdb.Database, clock: Clock) -> None:
    db.settings.disk_budget = "100MB"
    made = items()
    db.remember_many([next(made) for _ in range(50)])
    clock.advance(days=700)
    db.remember("later")
    assert db.retention.plan().is_empty
    assert db.count() == 51


def test_the_trash_goes_first_the_oldest_first(db: memdb.Database, clock: Clock) -> None:
    made = items()
    ids = [one.id for one in db.remember_many([next(made) for _ in range(200)])]
    db.forget(ids[:60])
    clock.advance(days=1)
    young = db.forget(ids[60:70]).batch
    used = db.retention.status()["bytes"]["bound"]
    plan = db.retention.plan(disk_budget=int(used * 0.99))
    assert plan.steps[0].what == "trash"
    db.retention.apply(plan.to_dict() | {"steps": [plan.to_dict()["steps"][0] | {"bytes": 1}]})
    assert [one.batch for one in db.trash()] == [young]
    assert db.count() == 130
    assert db.check()["ok"]


def test_what_evicted_vectors_took_is_given_back(tmp_path: Path, clock: Clock) -> None:
    count, dim = 3 * cleaning.STRETCH + 100, 64
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        db.spaces.create("own", dim=dim)
        written = db.remember_many(
            [
                {"text": f"n{n}", "vector": vector, "space": "own", "importance": float(n % 4 == 0)}
                for n, vector in enumerate(vectors)
            ],
            batch=4096,
        )
        engine = db._engine
        room.encode(engine)
        before = usage.disk_bytes(db.path)["space"]
        plan = db.retention.plan(Decay(2.0, "forget"))
        gone = [written[n].id for n in range(2 * cleaning.STRETCH) if n % 4]
        going = [
            {**item, "action": "evict", "final": True}
            for item in plan.to_dict()["items"]
            if item["id"] in set(gone)
        ]
        db.retention.apply({**plan.to_dict(), "items": going})
        assert db.count() == count - len(gone)
        assert usage.disk_bytes(db.path)["space"] < before - cleaning.STRETCH * dim
        for n in (0, 4, 2 * cleaning.STRETCH + 3):
            hit = db.recall(vector=vectors[n], space="own", k=1, mode="vector")[0]
            assert hit.id == written[n].id
        assert db.check()["ok"]


def _run_and_die(path: Path, clock: Clock, at: int) -> bool:
    """Plan and apply in a child that ends before its ``at``-th write; whether it got that far."""
    child = os.fork()
    if child == 0:
        try:
            with memdb.open(path, embedder="none", clock=clock) as db:
                bound = db.retention.status()["bytes"]["bound"]
                plan = db.retention.plan({"duplicates": {}}, disk_budget=int(bound * 0.9))
                left = [at]
                write = Store.write

                def counted(self: Store, function: Any) -> Any:
                    left[0] -= 1
                    if not left[0]:
                        os._exit(9)
                    return write(self, function)

                Store.write = counted  # type: ignore[method-assign]
                db.retention.apply(plan)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step_each_memory_is_there_or_not_and_the_store_is_sound(
    tmp_path: Path, clock: Clock
) -> None:
    made = items()
    prepared = tmp_path / "prepared"
    with memdb.open(prepared, embedder="none", clock=clock) as db:
        given = [{**next(made), "vector": unit(1.0, n / 200)} for n in range(150)]
        ids = [one.id for one in db.remember_many(given)]
        again = db.remember(given[0]["text"], kind="event", stream="talk", dedup="off").id
        db.forget(ids[100:110])
    died = rounds = 0
    for at in (1, 2, 3, 5, 8, 12, 20, 60):
        path = tmp_path / f"round{at}"
        shutil.copytree(prepared, path)
        rounds += 1
        died += _run_and_die(path, clock, at)
        with memdb.open(path, embedder="none", clock=clock) as db:
            db.remember("after the kill")  # lets maintenance finish what was begun
            db.compact()
            assert db.check()["ok"]
            assert db.retention.status()["leaving"] == 0
            present = [id for id in [*ids, again] if db.get(id) is not None]
            assert db.count() == len(present) + 1
            assert db.recall(given[50]["text"], mode="lexical", k=200)
    assert 4 <= died < rounds
