"""What a user sees of a database: write, read, update, forget, restore, recall, reopen."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import memdb
from tests.memdb.clock import NOW, Clock, unit

# --- writing and reading ----------------------------------------------------------------------


def test_every_field_comes_back_as_it_was_given(db: memdb.Database) -> None:
    written = db.remember(
        "Lunch with Ana",
        data={"guests": 2, "price": 12.5, "paid": True, "notes": [None, "x"]},
        source="app:calendar",
        external_id="cal-1",
        kind="event",
        tags=["food", "work"],
        metadata={"chat": "family", "n": 1, "list": [1, 2], "deep": {"a": "b"}},
        namespace="home/planner",
        stream="calendar/work",
        position=7,
        about=["Ana"],
        event_time="2025-02-03T12:30:00+01:00",
        event_end="2025-02-03T13:30:00+01:00",
        valid_from="2025-01-01",
        importance=0.5,
        pinned=True,
        sensitivity="private",
        expires_in="90d",
    )
    memory = db.get(written.id, namespace="home")
    assert memory == written.memory
    assert memory is not None
    assert memory.data == {"guests": 2, "price": 12.5, "paid": True, "notes": [None, "x"]}
    assert memory.event_time == datetime(2025, 2, 3, 11, 30, tzinfo=UTC)
    assert memory.time_zone == "+01:00"
    assert memory.recorded_at == NOW
    assert memory.expires_at == NOW + timedelta(days=90)
    assert memory.tags == ("food", "work")


def test_the_same_content_is_stored_once(db: memdb.Database) -> None:
    first = db.remember("Ana likes tea", about=["Ana"])
    second = db.remember("Ana likes tea", about=["Ana"])
    assert (second.status, second.id) == ("duplicate", first.id)
    assert db.remember("Ana likes tea", about=["Ana"], dedup="off").status == "inserted"
    assert db.remember("Ana likes tea", event_time="2024").status == "inserted"
    assert db.count() == 3


def test_duplicates_inside_one_batch_are_found(db: memdb.Database) -> None:
    written = db.remember_many(["one", "two", "one"])
    assert [w.status for w in written] == ["inserted", "inserted", "duplicate"]
    assert written[2].id == written[0].id


def test_external_ids_are_unique_in_their_namespace(db: memdb.Database) -> None:
    first = db.remember("a", external_id="x")
    with pytest.raises(memdb.Conflict):
        db.remember("b", external_id="x")
    assert db.remember("b", external_id="x", on_conflict="skip").memory.text == "a"
    assert db.remember("b", external_id="x", namespace="other").status == "inserted"
    replaced = db.remember("c", external_id="x", on_conflict="replace")
    assert (replaced.status, replaced.id) == ("replaced", first.id)
    memory = db.get(external_id="x")
    assert memory is not None and (memory.text, memory.version) == ("c", 2)
    assert [m.text for m in db.versions(first.id)] == ["a", "c"]


def test_a_failed_batch_writes_nothing(db: memdb.Database) -> None:
    db.remember("a", external_id="x")
    with pytest.raises(memdb.Conflict):
        db.remember_many([{"text": "b"}, {"text": "c", "external_id": "x"}])
    assert db.count() == 1


def test_update_keeps_the_version_before(db: memdb.Database, clock: Clock) -> None:
    first = db.remember("the old text", tags=["a"])
    clock.advance(days=1)
    db.update(first.id, tags=["b"])
    clock.advance(days=1)
    db.update(first.id, text="the new text")
    history = db.versions(first.id)
    assert [(m.version, m.text, m.tags) for m in history] == [
        (1, "the old text", ("a",)),
        (2, "the old text", ("b",)),
        (3, "the new text", ("b",)),
    ]
    assert [m.retired_at for m in history] == [
        NOW + timedelta(days=1),
        NOW + timedelta(days=2),
        None,
    ]
    then = db.get(first.id, as_of="2025-03-01T13:00:00Z")
    assert then is not None and then.tags == ("a",)
    assert db.count() == 1
    assert [h.text for h in db.recall("old", mode="lexical")] == []
    assert [h.text for h in db.recall("new", mode="lexical")] == ["the new text"]
    assert db.count({"tags": "a"}) == 0


def test_an_unknown_id_is_none_or_not_found(db: memdb.Database) -> None:
    absent = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert db.get(absent) is None
    with pytest.raises(memdb.NotFound):
        db[absent]
    with pytest.raises(memdb.NotFound):
        db.update(absent, text="x")
    with pytest.raises(memdb.InvalidArgument):
        db.get("not an id")


def test_get_many_keeps_the_order_and_the_gaps(db: memdb.Database) -> None:
    a, b = db.remember("a"), db.remember("b")
    absent = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    found = db.get_many([b.id, absent, a.id, b.id])
    assert [m and m.text for m in found] == ["b", None, "a", "b"]


# --- namespaces ---------------------------------------------------------------------------------


def test_a_read_covers_its_namespace_and_everything_under_it(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none", namespace="home") as home:
        home.remember("kitchen", namespace="home/kitchen")
        home.remember("house")
        home.remember("elsewhere", namespace="homework")
        assert sorted(m.text or "" for m in home.iter()) == ["house", "kitchen"]
        assert home.namespaces() == ["home", "home/kitchen"]
        assert len(home.recall("elsewhere", mode="lexical")) == 0
        assert len(home.recall("elsewhere", mode="lexical", namespace="")) == 1
        with memdb.open(tmp_path / "db", namespace="home/kitchen") as kitchen:
            assert [m.text for m in kitchen.iter()] == ["kitchen"]
            house = next(home.iter({"namespace": "home"}))
            assert kitchen.get(house.id) is None
            assert kitchen.get_many([house.id]) == [None]
            with pytest.raises(memdb.InvalidArgument):
                kitchen.forget(where={})
            assert kitchen.forget(ids=house.id).ids == ()


# --- forgetting -----------------------------------------------------------------------------------


def test_forget_hides_at_once_and_restore_brings_back(db: memdb.Database) -> None:
    kept = db.remember("about the garden", vector=unit(1))
    gone = db.remember("Ana's secret", about=["Ana"], vector=unit(0, 1), tags=["t"])
    batch = db.forget(about="Ana")
    assert batch.ids == (gone.id,)
    assert db.get(gone.id) is None
    assert db.count() == 1
    assert [h.id for h in db.recall("secret", mode="lexical")] == []
    assert [h.id for h in db.recall(vector=unit(0, 1), mode="vector")] == [kept.id]
    assert db.values("tags") == []
    assert db.restore(batch=batch.batch) == [gone.id]
    assert [h.id for h in db.recall("secret", mode="lexical")] == [gone.id]
    assert [h.id for h in db.recall(vector=unit(0, 1), mode="vector", k=1)] == [gone.id]
    with pytest.raises(memdb.NotFound):
        db.restore(batch=batch.batch)


def test_the_trash_keeps_things_for_seven_days(db: memdb.Database, clock: Clock) -> None:
    memory = db.remember("a")
    db.forget(memory.id)
    clock.advance(days=6.9)
    assert db.restore(memory.id) == [memory.id]
    db.forget(memory.id)
    clock.advance(days=7.1)
    with pytest.raises(memdb.NotFound):
        db.restore(memory.id)


def test_a_restored_memory_cannot_take_an_external_id_back(db: memdb.Database) -> None:
    first = db.remember("a", external_id="x")
    db.forget(first.id)
    db.remember("b", external_id="x")
    with pytest.raises(memdb.Conflict):
        db.restore(first.id)


def test_a_memory_is_gone_from_the_instant_it_expires(db: memdb.Database, clock: Clock) -> None:
    memory = db.remember("parking spot 7", expires_in="2h", vector=unit(1))
    clock.advance(hours=1, minutes=59)
    assert db.count() == 1
    clock.advance(minutes=1)
    assert db.count() == 0
    assert db.get(memory.id) is None
    assert list(db.iter()) == []
    assert len(db.recall("parking", mode="lexical")) == 0
    assert len(db.recall(vector=unit(1), mode="vector")) == 0
    assert len(db.recall_within(2.0, vector=unit(1))) == 0


def test_report_names_what_is_known_derived_and_mentioned(db: memdb.Database) -> None:
    source = db.remember("Ana moved to Graz", about=["Ana"])
    derived = db.remember("lives in Styria", derived_from=[source.id])
    further = db.remember("speaks German", derived_from=[derived.id])
    mention = db.remember("dinner with ana on Friday")
    db.remember("nothing to do with it")
    report = db.report(about="Ana")
    assert [m.id for m in report.items] == [source.id]
    assert {m.id for m in report.derived} == {derived.id, further.id}
    assert [m.id for m in report.mentions] == [mention.id]


# --- recall ---------------------------------------------------------------------------------------


def test_recall_returns_exactly_min_k_matches_at_every_selectivity(db: memdb.Database) -> None:
    rng = np.random.default_rng(5)
    db.remember_many(
        [
            {"text": f"note {i} common", "vector": rng.standard_normal(8), "metadata": {"n": i}}
            for i in range(300)
        ]
    )
    query = rng.standard_normal(8)
    for bound in (0, 1, 2, 9, 10, 11, 150, 300):
        where = {"metadata.n": {"$lt": bound}}
        for mode in ("vector", "lexical", "hybrid"):
            hits = db.recall("common note", vector=query, mode=mode, k=10, where=where)
            assert len(hits) == min(10, bound), (bound, mode)
            assert all(h.memory.metadata["n"] < bound for h in hits)
            assert len({h.id for h in hits}) == len(hits)


def test_vector_recall_equals_brute_force(db: memdb.Database) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((200, 8)).astype(np.float32)
    ids = [
        w.id for w in db.remember_many([{"vector": v, "data": i} for i, v in enumerate(vectors)])
    ]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in rng.standard_normal((20, 8)).astype(np.float32):
        expected = np.argsort(-(units @ query), kind="stable")[:5]
        hits = db.recall(vector=query, mode="vector", k=5)
        assert [h.id for h in hits] == [ids[i] for i in expected]


def test_explain_accounts_for_the_order(db: memdb.Database) -> None:
    db.remember("Ana is allergic to peanuts", vector=unit(1))
    db.remember("Ana went to the lake", vector=unit(0.5, 1))
    hits = db.recall("ana allergic", vector=unit(1), explain=True)
    assert hits.plan["allowed"] == 2
    totals = [sum(h.why.stages.values()) for h in hits]
    assert totals == sorted(totals, reverse=True)
    assert "allerg" in hits[0].why.terms
    assert all(0 <= h.score <= 1 for h in hits)
    assert hits.search_id != db.recall("ana", mode="lexical").search_id


def test_min_score_makes_i_do_not_know_possible(db: memdb.Database) -> None:
    db.remember("Ana is allergic to peanuts")
    assert len(db.recall("quantum chromodynamics", mode="lexical")) == 0
    hits = db.recall("what is Ana allergic to", mode="lexical")
    assert len(db.recall("what is Ana allergic to", mode="lexical", min_score=1.0)) == 0
    assert len(db.recall("what is Ana allergic to", mode="lexical", min_score=hits[0].score)) == 1


def test_what_is_not_valid_now_is_not_recalled_unless_asked_for_then(db: memdb.Database) -> None:
    db.profile.set("address", "12 Elm Street", valid_from="2020-01-01")
    db.profile.set("address", "9 Oak Avenue", valid_from="2024-06-01")
    assert [h.memory.data for h in db.recall("address", mode="lexical")] == ["9 Oak Avenue"]
    then = db.recall("address", mode="lexical", as_of="2023")
    assert [h.memory.data for h in then] == ["12 Elm Street"]
    both = db.recall("address", mode="lexical", where={"valid_from": {"$exists": True}})
    assert len(both) == 2


def test_the_lines_of_a_context_are_in_the_order_of_the_dates_they_show(
    db: memdb.Database,
) -> None:
    db.profile.set("address", "12 Elm St", valid_from="2024-05-01")
    db.remember("The address of the school")
    db.remember("We changed the address", event_time="2024-06-10")
    lines = db.context("address", tokens=300).text.splitlines()[2:-1]
    assert [line[30:40] for line in lines] == ["2024-05-01", "2024-06-10", "2025-03-01"]


def test_context_never_exceeds_its_budget(db: memdb.Database) -> None:
    for i in range(30):
        db.remember(f"garden note {i} about tomatoes", event_time=f"2024-03-{i + 1:02d}")
    for tokens in (0, 1, 20, 60, 200, 1000):
        packed = db.context("tomatoes in the garden", tokens=tokens)
        assert packed.tokens <= tokens
        assert len(packed.items) + len(packed.dropped) == 30
        days = [h.event_time for h in packed.items]
        assert days == sorted(days)


# --- reopening, other processes -----------------------------------------------------------------


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with memdb.open(path, embedder="none") as db:
        written = db.remember("kept", vector=unit(1), tags=["a"])
        db.profile["name"] = "Mia"
    with memdb.open(path) as db:
        assert db[written.id].text == "kept"
        assert db.profile["name"] == "Mia"
        assert db.recall("kept", mode="lexical")[0].id == written.id
        assert db.recall(vector=unit(1), mode="vector")[0].id == written.id
        assert db.check()["ok"]


def test_a_write_is_visible_to_another_process_at_once(db: memdb.Database) -> None:
    db.remember("from the first process", external_id="one")
    program = (
        "import sys, memdb\n"
        "db = memdb.open(sys.argv[1], embedder='none')\n"
        "print(db.get(external_id='one').text)\n"
        "db.remember('from the second process', external_id='two')\n"
        "db.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(db.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "from the first process"
    assert db.get(external_id="two") is not None
    assert db.recall("second", mode="lexical")[0].text == "from the second process"


def test_two_handles_share_one_database(tmp_path: Path) -> None:
    first = memdb.open(tmp_path / "db", embedder="none")
    second = memdb.open(tmp_path / "db", namespace="other", source="me")
    second.remember("x")
    first.close()
    first.close()
    assert second.count() == 1
    assert next(second.iter()).source == "me"
    second.close()
    with pytest.raises(memdb.MemdbError):
        second.count()


def test_a_readonly_handle_reads_and_refuses_to_write(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("x")
    with memdb.open(tmp_path / "db", readonly=True) as db:
        assert db.count() == 1
        for write in (lambda: db.remember("y"), lambda: db.forget(where={"kind": "note"})):
            with pytest.raises(memdb.PermissionDenied):
                write()
        assert db.count() == 1
