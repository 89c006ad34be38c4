"""A database whose store was packed does what any other does: answers, changes, forgets, erases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb import Canary, scan_erased
from memdb.storage import tables
from tests.memdb.full_store import Clock, vector

COUNT = 160


def word(number: int) -> str:
    return f"qzword{number * 7919 % 100_003:06d}"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    clock = Clock()
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as opened:
        opened.remember_many(
            [
                {
                    "text": f"{word(number)} was said about the weather",
                    "external_id": f"mail:{number}",
                    "stream": f"chat/{number % 3}",
                    "vector": vector(number),
                }
                for number in range(COUNT)
            ]
        )
        opened.remember("without an id of its own")
        first = opened.get(external_id="mail:1")
        assert first is not None
        opened.update(first.id, tags=["early"])
        clock.advance(days=60)
        opened.compact()
        with opened._engine.store.read() as txn:
            assert txn.count(tables.DENSE) and txn.count(tables.FORWARD) <= 1  # the last is fresh
            assert not txn.count(tables.IDS)
            assert txn.count(tables.RECORDS) <= 4  # the last ones, and an earlier version
        yield opened


def found(db: memdb.Database, number: int) -> list[str | None]:
    hits = db.recall(word(number), mode="lexical", k=3)
    return [hit.memory.external_id for hit in hits]


def test_what_was_packed_is_found_every_way_there_is(db: memdb.Database) -> None:
    for number in (0, 1, 63, 64, COUNT - 1):
        memory = db.get(external_id=f"mail:{number}")
        assert memory is not None and (memory.text or "").startswith(word(number))
        assert db[memory.id] == memory
        assert found(db, number) == [f"mail:{number}"]
        (near,) = db.recall(vector=vector(number), mode="vector", k=1)
        assert near.id == memory.id
    assert len(list(db.iter())) == db.count() == COUNT + 1
    assert len(db.recall("weather", mode="lexical", k=COUNT + 9)) == COUNT
    ids = [memory.id for memory in db.list(limit=COUNT + 1).items]
    assert [memory.id for memory in db.get_many(ids) if memory is not None] == ids
    early = db.get(external_id="mail:1")
    assert early is not None and [one.version for one in db.versions(early.id)] == [1, 2]
    assert db.check()["ok"]


def test_what_is_written_after_it_counts_and_joins_the_rest(db: memdb.Database) -> None:
    assert db.remember("without an id of its own").status == "duplicate"
    with pytest.raises(memdb.Conflict):
        db.remember("another text", external_id="mail:7")
    old = db.get(external_id="mail:9")
    assert old is not None
    db.update(old.id, text="rewritten entirely")
    new = db.remember("newcomer", stream="chat/0", external_id="mail:new")
    gone = db.get(external_id="mail:11")
    assert gone is not None
    db.forget(ids=[gone.id])
    for _ in range(2):
        assert [hit.id for hit in db.recall("rewritten", mode="lexical")] == [old.id]
        assert [hit.id for hit in db.recall("newcomer", mode="lexical")] == [new.id]
        assert found(db, 11) == [] and db.get(gone.id) is None
        assert [one.version for one in db.versions(old.id)] == [1, 2]
        assert db.check()["ok"]
        db.compact()
    assert db.restore(ids=[gone.id]) == [gone.id]
    assert found(db, 11) == ["mail:11"]


def test_erasing_half_leaves_nothing_of_it_and_all_of_the_rest(
    db: memdb.Database, tmp_path: Path
) -> None:
    ids = {
        number: memory.id
        for number in range(COUNT)
        if (memory := db.get(external_id=f"mail:{number}")) is not None
    }
    canaries = [
        Canary(word(n), vector=vector(n), id=ids[n], external_id=f"mail:{n}") for n in range(COUNT)
    ]
    before = scan_erased(tmp_path / "db", canaries, fragments=True)
    assert {one.canary for one in before.found} == set(range(COUNT))
    assert {"term hash", "id bytes", "external id hash"} <= {one.form for one in before.found}
    half = range(0, COUNT, 2)
    assert db.erase(ids=[ids[n] for n in half]).wait(60).state == "scrubbed"
    after = scan_erased(tmp_path / "db", [canaries[n] for n in half], fragments=True)
    assert after.clean, after.found
    assert all(found(db, n) == ([] if n in half else [f"mail:{n}"]) for n in range(COUNT))
    assert db.count() == COUNT // 2 + 1 and db.check()["ok"]
    db.compact()
    assert db.check()["ok"] and scan_erased(tmp_path / "db", [canaries[n] for n in half]).clean


def test_a_snapshot_of_it_opens_and_goes_its_own_way(db: memdb.Database, tmp_path: Path) -> None:
    copy = db.snapshot(tmp_path / "copy")
    memory = db.get(external_id="mail:3")
    assert memory is not None
    with memdb.open(copy, embedder="none", clock=db._engine.clock) as other:
        other.forget(ids=[memory.id])
        assert found(other, 3) == [] and found(other, 4) == ["mail:4"]
        assert other.check()["ok"]
    assert found(db, 3) == ["mail:3"]
