"""Plans and policies on a real database: what they decide, that applying does it, and undoing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memdb
from memdb import BudgetExceeded, Conflict, InvalidArgument, NotFound
from memdb.retention import (
    Candidate,
    Consolidate,
    Decay,
    Decision,
    Duplicates,
    Situation,
    Superseded,
)
from memdb.retention.planning import Plan
from tests.memdb.clock import Clock, unit

WORDS = [f"{first}{second}" for first in "bcdfgklmnprst" for second in ("ade", "ilo", "ora", "un")]


def texts(count: int, seed: int = 1) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) + f" number{n}" for n in range(count)]


def fill(db: memdb.Database, count: int, **fields: Any) -> list[str]:
    return [one.id for one in db.remember_many([{"text": t, **fields} for t in texts(count)])]


def actions(plan: Plan) -> dict[str, tuple[str, str]]:
    return {item.id: (item.action, item.rule) for item in plan.items}


def test_nothing_is_planned_until_the_owner_asks(db: memdb.Database, clock: Clock) -> None:
    fill(db, 5)
    clock.advance(days=3000)
    plan = db.retention.plan()
    assert plan.is_empty
    assert plan.items == ()
    assert plan.totals["memories"] == 5


def test_the_same_moment_gives_the_same_plan_and_it_reads_back_from_json(
    db: memdb.Database, clock: Clock
) -> None:
    fill(db, 30, kind="event")
    later = clock.now() + timedelta(days=400)
    plan = db.retention.plan(Decay(0.5, "forget"), now=later)
    assert plan == db.retention.plan(Decay(0.5, "forget"), now=later)
    assert len(plan.of("forget")) == 30
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(InvalidArgument):
        Plan.from_dict({"now": "never"})


def test_precedence_is_expiry_pin_superseded_duplicates_decay(
    db: memdb.Database, clock: Clock
) -> None:
    same = {"text": "the same words", "kind": "event"}
    expired = db.remember(**same, expires_in="1d", dedup="off").id
    pinned = db.remember(**same, pinned=True, dedup="off").id
    clock.advance(minutes=1)
    older = db.remember(**same, source="app:a", dedup="off").id
    clock.advance(minutes=1)
    newest = db.remember(**same, source="app:b", dedup="off").id
    clock.advance(days=500)
    plan = db.retention.plan([Decay(0.9), Duplicates()])
    found = actions(plan)
    assert found[expired] == ("forget", "expired")
    assert found[pinned] == ("keep", "pinned")
    assert found[older] == ("forget", "duplicate")
    assert found[newest] == ("archive", "decayed")
    assert {i.linked for i in plan.items if i.rule == "duplicate"} == {newest}


def test_near_duplicates_are_told_by_their_vectors(db: memdb.Database, clock: Clock) -> None:
    first = db.remember("tea at four", vector=unit(1.0, 0.01)).id
    other = db.remember("the car is red", vector=unit(0.0, 1.0)).id
    clock.advance(minutes=1)
    newest = db.remember("tea at 4 pm", vector=unit(1.0)).id
    found = actions(db.retention.plan(Duplicates(near=0.99)))
    assert found == {first: ("forget", "near duplicate")}
    assert {other, newest}.isdisjoint(found)


def test_superseded_values_and_versions_go_beyond_a_number_and_an_age(
    db: memdb.Database, clock: Clock
) -> None:
    note = db.remember("draft 0").id
    for number in range(1, 4):
        clock.advance(days=10)
        db.update(note, text=f"draft {number}")
    for day in range(4):
        clock.advance(days=10)
        db.profile.set("city", f"town {day}", subject="user", valid_from=clock.now())
    rule = Superseded(keep_versions=1, keep_days=15)
    plan = db.retention.plan(rule)
    assert [(i.version, i.action, i.final) for i in plan.items if i.id == note] == [
        (1, "prune", True),
        (2, "prune", True),
    ]
    gone = [item for item in plan.items if item.key == "city"]
    assert [(item.action, item.final) for item in gone] == [("forget", False)]
    assert plan.profile_keys == (("default", "user", "city"),)
    db.retention.apply(plan)
    assert [one.version for one in db.versions(note)] == [3, 4]
    assert [one.data for one in db.profile.versions("city")] == ["town 1", "town 2", "town 3"]
    assert db.check()["ok"]


def test_applying_is_refused_when_memories_changed_unless_those_are_skipped(
    db: memdb.Database, clock: Clock
) -> None:
    ids = fill(db, 4, kind="event")
    clock.advance(days=900)
    plan = db.retention.plan(Decay(0.5, "forget"))
    db.update(ids[0], text="changed")
    with pytest.raises(Conflict):
        db.retention.apply(plan)
    assert db.count() == 4
    done = db.retention.apply(plan, changed="skip")
    assert done.skipped == (ids[0],)
    assert done.done == {"forget": 3}
    assert [memory.id for memory in db.iter()] == [ids[0]]


def test_filing_in_the_background_does_not_outdate_a_plan(db: memdb.Database, clock: Clock) -> None:
    fill(db, 90, kind="event", tags=["x"])
    clock.advance(days=900)
    plan = db.retention.plan(Decay(0.5, "forget"))
    db.compact()
    engine = db._engine
    engine.store.write(lambda txn: engine.filters.fold(txn, 64))
    db.retention.apply(plan)
    assert db.count() == 0


def test_undo_brings_back_what_went_to_the_trash_for_seven_days(
    db: memdb.Database, clock: Clock
) -> None:
    ids = fill(db, 3, kind="event")
    clock.advance(days=900)
    done = db.retention.apply(db.retention.plan({"decay": {"below": 0.5, "action": "forget"}}))
    assert db.count() == 0
    assert done.batch is not None
    assert sorted(db.retention.undo(done.batch)) == sorted(ids)
    assert db.count() == 3
    with pytest.raises(NotFound):
        db.retention.undo(done.batch)
    again = db.retention.apply(db.retention.plan(Decay(0.5, "forget")))
    clock.advance(days=8)
    with pytest.raises(NotFound):
        db.retention.undo(str(again.batch))


def test_a_users_own_policy_needs_two_names(db: memdb.Database) -> None:
    @dataclass(frozen=True)
    class NoSecrets:
        precedence: int = 35

        def decide(
            self, candidates: Sequence[Candidate], situation: Situation
        ) -> Mapping[int, Decision]:
            return {
                one.row: Decision("forget", "secret")
                for one in candidates
                if "secret" in one.memory.tags
            }

    kept, gone = db.remember("tea").id, db.remember("1234", tags=["secret"]).id
    plan = db.retention.plan([NoSecrets(), Decay(1.1, "forget")])
    assert actions(plan) == {kept: ("forget", "decayed"), gone: ("forget", "secret")}
    with pytest.raises(InvalidArgument):
        db.retention.plan(object())  # type: ignore[arg-type]


def test_consolidation_writes_one_memory_with_provenance_and_trashes_the_others(
    db: memdb.Database,
) -> None:
    ids = fill(db, 3)

    def joined(memories: Sequence[memdb.Memory]) -> list[dict[str, Any]]:
        return [{"text": "three of them", "derived_from": [memory.id for memory in memories]}]

    done = db.retention.apply(db.retention.plan(Consolidate(joined)))
    assert done.done == {"consolidate": 3}
    (left,) = db.iter()
    assert (left.text, sorted(left.derived_from)) == ("three of them", sorted(ids))
    db.retention.undo(str(done.batch))
    assert db.count() == 4


def test_policies_come_from_the_database_and_from_a_file_beside_it(
    db: memdb.Database, clock: Clock, tmp_path: Path
) -> None:
    fill(db, 2, kind="event")
    clock.advance(days=900)
    db.settings.policies = {"decay": {"below": 0.5}, "duplicates": {"near": 0.9}}
    assert {i.action for i in db.retention.plan().items} == {"archive"}
    (db.path / "retention.toml").write_text('[decay]\nbelow = 0.5\naction = "forget"\n')
    assert {i.action for i in db.retention.plan().items} == {"forget"}
    assert [one["policy"] for one in db.retention.status()["policies"]] == [
        "Expired",
        "Pinned",
        "Duplicates",
        "Decay",
    ]
    other = tmp_path / "other.toml"
    other.write_text("[superseded]\nkeep_days = 1\n")
    assert db.retention.plan(other).is_empty


@pytest.mark.parametrize(
    ("tables", "field"),
    [
        ({"decy": {}}, "policy.decy"),
        ({"decay": {"under": 1}}, "policy.decay.under"),
        ({"decay": {"below": "much"}}, "policy.decay.below"),
        ({"decay": {"below": 0.2, "action": "burn"}}, "policy.decay.action"),
        ({"duplicates": {"near": 2}}, "policy.duplicates.near"),
        ({"classes": {"note": -1}}, "policy.classes.note"),
        ({"budget": {"disk": "lots"}}, "policy.budget.disk"),
        ({"curve": "linear"}, "policy.curve"),
    ],
)
def test_a_setting_that_is_none_is_named(
    db: memdb.Database, tables: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        db.settings.policies = tables
    assert caught.value.field == field
    assert db.settings.policies == {}


def test_a_budget_evicts_by_value_and_never_what_is_pinned_or_a_fact(
    db: memdb.Database, clock: Clock
) -> None:
    old = fill(db, 60, kind="event")
    db.update(old[0], pinned=True)
    fact = db.profile.set("city", "Rome", subject="user").id
    clock.advance(days=400)
    for number in range(60):
        db.remember(f"recent thing {number} {WORDS[number % 50]}", kind="event")
    used = db.retention.status()["bytes"]["bound"]
    plan = db.retention.plan(disk_budget=int(used * 0.97))
    assert all(item.final for item in plan.of("evict"))
    evicted = [item for item in plan.of("evict") if item.current]
    assert evicted
    assert {old[0], fact}.isdisjoint(item.id for item in evicted)
    values = {item.id: item.value for item in db.retention.plan(Decay(1.1)).items}
    values.update((item.id, item.value) for item in evicted)
    gone = {item.id for item in evicted}
    assert max(values[id] for id in gone) <= min(v for id, v in values.items() if id not in gone)
    before = db.retention.status()["bytes"]["disk"]
    done = db.retention.apply(plan)
    assert done.done["evict"] == len(plan.of("evict"))
    assert done.bytes_after <= before
    assert db.get(fact) is not None
    assert db.get(old[0]) is not None
    assert all(db.get(item.id) is None for item in evicted)
    assert db.check()["ok"]


def test_a_budget_that_cannot_hold_what_is_protected_is_an_error(db: memdb.Database) -> None:
    fill(db, 20, pinned=True)
    with pytest.raises(BudgetExceeded):
        db.retention.plan(disk_budget="100kB")
    assert db.count() == 20


def test_a_chunk_whose_file_is_there_keeps_its_words_and_its_source(
    tmp_path: Path, clock: Clock
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, text in enumerate(texts(40)):
        (notes / f"{number}.md").write_text(f"# Note {number}\n\n{text}\n")
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as db:
        db.files.sync(notes)
        used = db.retention.status()["bytes"]["bound"]
        plan = db.retention.plan(disk_budget=int(used * 0.99))
        demoted = plan.of("demote")
        assert demoted
        assert {item.level_to for item in demoted} == {4}
        db.retention.apply(plan)
        chunk = db[demoted[0].id]
        assert chunk.text is None
        assert chunk.source.startswith("file:///")
        place = int(chunk.source.rpartition("/")[2].partition(".")[0])
        hits = db.recall(f"number{place}", mode="lexical")
        assert hits[0].id == chunk.id
        assert db.check()["ok"]
        assert db.files.sync(notes).unchanged == 40
