"""A disk budget: it holds while memories come, nothing protected goes, and kills cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memdb
from bench.forgetting import kills, year
from memdb import BudgetExceeded
from memdb.engine import LIVE
from memdb.retention import Decay, cleaning, leaving, room, usage
from memdb.retention.applying import Applier
from memdb.retention.planning import Plan
from tests.memdb.clock import Clock

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


def test_what_loses_nothing_comes_before_anything_goes(tmp_path: Path, clock: Clock) -> None:
    made = items()
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        db.remember_many([next(made) for _ in range(1_500)])
        used = db.retention.status()["bytes"]["bound"]
        db.settings.disk_budget = budget = int(used * 0.7)
        db._maintenance.drain()
        assert db.retention.status()["bytes"]["bound"] < budget
        assert db.count() == 1_500
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


def test_stretches_are_emptied_only_as_far_as_the_budget_has_room(
    tmp_path: Path, clock: Clock
) -> None:
    count = 4 * cleaning.STRETCH
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        db.spaces.create("own", dim=32)
        vectors = np.random.default_rng(2).standard_normal((count, 32)).astype(np.float32)
        texts = (6 * f"{item['text']} " for item in items())  # packed, they take a sixth
        written = db.remember_many(
            [
                {"text": text, "vector": vector, "space": "own"}
                for vector, text in zip(vectors, texts, strict=False)
            ],
            batch=4096,
        )
        engine = db._engine
        with db._maintenance.paused():
            let_leave(db, [one.id for number, one in enumerate(written) if number % 5 < 3])
            kept = db.count()
            while leaving.step(engine):
                pass
            room.squeeze(engine)
            room.finish(engine, budget=1)  # packs, and may not move anything
            with engine.store.read() as txn:
                live = usage.live_bytes(txn)
            budget = sum(usage.disk_bytes(db.path).values()) + live + 5 * room.STEP_BYTES
            ends = []
            for limit in (budget, None):
                with year.watched(db) as operations:
                    room.finish(engine, budget=limit)
                assert limit is None or operations.most <= limit
                with engine.store.read() as txn:
                    ends.append(int(engine.filters.get_set(txn, LIVE).max()))
        assert ends[0] < ends[1], "not all of them had moved"
        assert db.count() == kept
        assert db.recall(vector=vectors[3], space="own", k=1, mode="vector")[0].id == written[3].id
        assert db.check()["ok"]


def test_killed_at_any_step_each_memory_is_there_or_not_and_the_store_is_sound(
    tmp_path: Path,
) -> None:
    for outcome in kills.measure(tmp_path / "kills", 4, seed=4, operations=["apply", "budget"]):
        assert outcome.healthy, outcome.messages
        assert outcome.kills + outcome.at_random + outcome.survived == 4
        assert outcome.points > 50, "there was something to be killed in"


def dangling(db: memdb.Database) -> int:
    with db._engine.store.read() as txn:
        return leaving.dangling(txn)


def evict(db: memdb.Database, ids: list[str]) -> None:
    """Let memories leave, and go no further."""
    with db._maintenance.paused():
        let_leave(db, ids)


def let_leave(db: memdb.Database, ids: list[str]) -> None:
    wanted = set(ids)
    plan = db.retention.plan(Decay(2.0)).to_dict()
    items = [{**i, "action": "evict", "final": True} for i in plan["items"] if i["id"] in wanted]
    Applier(db._engine, Plan.from_dict({**plan, "items": items})).lower()


def test_the_keys_of_what_left_go_with_it_also_after_a_kill(db: memdb.Database) -> None:
    """What a killed process had not come to is in the store, so that the next one does it."""
    written = [db.remember(f"text {n}", external_id=f"e{n}").id for n in range(6)]
    db.export(path := db.path.parent / "out.jsonl")
    evict(db, written[:4])
    assert db.get(external_id="e0") is None
    assert dangling(db) == 4
    assert db.remember("another", external_id="e1").status == "inserted"
    db.import_(path)  # brings the others back under their old ids, and those are theirs again
    db._maintenance.drain()
    assert dangling(db) == 0
    assert db.retention.status()["leaving"] == 0
    for number in (0, 2, 3, 4, 5):
        found = db.get(external_id=f"e{number}")
        assert found is not None
        assert (found.id, found.text) == (written[number], f"text {number}")
    assert db.check()["ok"]


def test_what_left_is_neither_found_by_its_vector_nor_read_again_with_the_others(
    db: memdb.Database,
) -> None:
    """Readers keep fresh vectors while rows leave and others are written and encoded."""
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((700, 8)).astype(np.float32)
    given = [{"text": f"t{n}", "vector": vector} for n, vector in enumerate(vectors)]
    ids = [one.id for one in db.remember_many(given[:560])]

    def nearest(number: int) -> str | None:
        hits = db.recall(vector=vectors[number], mode="vector", k=1_000)
        assert len(hits) == len({hit.id for hit in hits}) == db.count()
        return hits[0].text if (hits[0].why.cosine or 0.0) > 0.9999 else None

    assert nearest(3) == "t3"
    evict(db, ids[:5])
    assert nearest(3) is None
    db._maintenance.drain()
    assert nearest(3) is None
    db.remember_many(given[560:640])
    assert nearest(600) == "t600"
    room.encode(db._engine)
    db.remember_many(given[640:])
    for number in (2, 7, 600, 690):
        assert nearest(number) == (None if number == 2 else f"t{number}")
