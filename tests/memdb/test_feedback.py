"""Feedback: durable, counted once, felt by retention alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import memdb
from tests.memdb.clock import Clock


def test_a_use_is_kept_with_the_memory_and_survives(tmp_path: Path) -> None:
    clock = Clock()
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        note = db.remember("the key is under the stone").id
        fact = db.profile.set("address", "7 Oak Lane").id
        clock.advance(days=90)
        hits = db.recall("where is the key to the address?")
        done = db.feedback(hits.search_id, [note, fact])
        assert (done.counted, done.unchanged) == ((note, fact), ())
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        used = db[note]
        assert (used.use_count, used.last_used, used.version) == (1, clock.now(), 1)
        # S (1 + 1.5 (1 - R)) with S = 180 days and R = .3 + .7 exp(-90 / 180)
        assert used.strength == pytest.approx(180 * (1 + 1.5 * 0.7 * (1 - 2.718281828**-0.5)))
        assert (db[fact].use_count, db[fact].strength) == (1, None)  # facts do not decay


def test_a_use_counts_once_a_search_and_once_in_a_quarter_of_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        note = db.remember("the key is under the stone").id
        first = db.recall("key").search_id
        assert db.feedback(first, [note]).counted == (note,)
        clock.advance(minutes=14)
        second = db.recall("key").search_id
        assert db.feedback(second, [note]).counted == ()
        clock.advance(minutes=2)
        third = db.recall("key").search_id
        assert db.feedback(third, [note, note]).counted == (note,)
        clock.advance(days=3)
        assert db.feedback(third, [note]).unchanged == (note,)  # sent again, late
        assert db[note].use_count == 2
        clock.advance(days=20_000)
        assert db.feedback(db.recall("key").search_id, [note]).counted == (note,)
        strength = db[note].strength
        assert strength is not None and strength <= 3650


def test_no_ranking_changes_by_it(tmp_path: Path) -> None:
    clock = Clock()
    with memdb.open(tmp_path / "db", clock=clock) as db:
        ids = [db.remember(f"note {n} about keys and stones").id for n in range(12)]
        db.profile.set("address", "7 Oak Lane")

        def ranked() -> list[tuple[str, float, dict[str, float]]]:
            found = db.recall("the keys under the stones", k=20)
            return [(hit.id, hit.score, dict(hit.why.stages)) for hit in found]

        before = ranked()
        for _ in range(5):
            clock.advance(days=1)
            assert db.feedback(db.recall("keys").search_id, ids[7:]).counted
        assert ranked() == before
        assert db.check()["ok"]


def test_what_is_not_there_is_named_and_nothing_counted(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none", clock=Clock()) as db:
        note, gone = db.remember("the key").id, db.remember("the stone").id
        search = db.recall("key stone").search_id
        db.forget(gone)
        with pytest.raises(memdb.NotFound):
            db.feedback(search, [note, gone])
        with pytest.raises(memdb.InvalidArgument):
            db.feedback("no such search", [note])
        assert db[note].use_count == 0
        assert db.feedback(search, []).counted == ()


def test_another_namespace_is_out_of_reach(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        note = db.remember("the key", namespace="home").id
        search = db.recall("key", namespace="home").search_id
        with pytest.raises(memdb.NotFound):
            db.feedback(search, [note])
