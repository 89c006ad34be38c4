"""The trash: what is in it, who sees it, and what comes back, samples of series included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memdb
from tests.memdb.cli_runner import Runner
from tests.memdb.clock import NOW, Clock


def readings(db: memdb.Database, count: int, **fields: str) -> list[str]:
    """The ids of ``count`` samples of a series, one a minute."""
    start = datetime(2024, 5, 1, tzinfo=UTC)
    return [
        db.history.append(
            "pulse", data={"bpm": 60 + i}, event_time=start + timedelta(minutes=i), **fields
        ).id
        for i in range(count)
    ]


def test_the_trash_lists_batches_latest_first_with_their_days(
    db: memdb.Database, clock: Clock
) -> None:
    first, second, third = (db.remember(text).id for text in ("one", "two", "three"))
    db.forget(first)
    clock.advance(days=1)
    batch = db.forget([second, third])
    latest, oldest = db.trash()
    assert latest.batch == batch.batch
    assert (latest.forgotten_at, latest.restorable_until) == (
        NOW + timedelta(days=1),
        NOW + timedelta(days=8),
    )
    assert [m.id for m in latest.items] == [second, third]
    assert [m.text for m in oldest.items] == ["one"]
    db.restore(second)
    assert [[m.text for m in b.items] for b in db.trash()] == [["three"], ["one"]]
    clock.advance(days=6.5)
    assert [[m.text for m in b.items] for b in db.trash()] == [["three"]]
    db.restore(batch=batch.batch)
    assert db.trash() == []


def test_what_is_outside_the_namespace_is_neither_listed_nor_restored(tmp_path: Path) -> None:
    with (
        memdb.open(tmp_path / "db", embedder="none", namespace="") as everything,
        memdb.open(tmp_path / "db", namespace="home") as home,
    ):
        inside = everything.remember("a", namespace="home/kitchen").id
        near = everything.remember("b", namespace="homework").id
        (sample,) = readings(everything, 1, namespace="work")
        batch = everything.forget([inside, near, sample]).batch
        assert [m.id for b in home.trash() for m in b.items] == [inside]
        with pytest.raises(memdb.NotFound):
            home.restore(near)
        with pytest.raises(memdb.NotFound):
            home.restore([sample])
        assert home.restore(batch=batch) == [inside]
        assert home.trash() == []
        with pytest.raises(memdb.NotFound):
            home.restore(batch=batch)
        (left,) = everything.trash()
        assert {m.id for m in left.items} == {near, sample}
        assert set(everything.restore(batch=batch)) == {near, sample}


def test_what_expires_in_the_trash_cannot_come_back(db: memdb.Database, clock: Clock) -> None:
    id = db.remember("parking spot 7", expires_in="2h").id
    db.forget(id)
    assert len(db.trash()) == 1
    clock.advance(hours=2)
    assert db.trash() == []
    with pytest.raises(memdb.NotFound):
        db.restore(id)


def test_samples_are_forgotten_and_restored_by_id_with_records(db: memdb.Database) -> None:
    samples = readings(db, 5)
    note = db.remember("a note").id
    forgotten = db.forget([samples[1], note, samples[3], samples[1]])
    assert set(forgotten.ids) == {note, samples[1], samples[3]}
    assert len(forgotten.ids) == 3
    assert [m.id for m in db.history.range("pulse")] == [samples[0], samples[2], samples[4]]
    assert db.get(samples[1]) is None
    assert db.stats()["series"]["samples"] == 3
    assert db.stats()["trash"] == 3
    (batch,) = db.trash()
    assert [m.data for m in batch.items if m.kind == "pulse"] == [{"bpm": 61}, {"bpm": 63}]
    assert db.restore(samples[3]) == [samples[3]]
    assert set(db.restore(batch=forgotten.batch)) == {note, samples[1]}
    assert [m.id for m in db.history.range("pulse")] == samples
    assert db.trash() == []
    assert db.check()["ok"]


def test_forgetting_again_what_is_forgotten_names_nothing(db: memdb.Database) -> None:
    (sample,) = readings(db, 1)
    db.forget(sample)
    assert db.forget(sample).ids == ()
    assert len(db.trash()) == 1


def test_filters_and_people_narrow_ids_of_samples_and_never_reach_others(
    db: memdb.Database,
) -> None:
    samples = readings(db, 3)
    assert db.forget(where={"kind": "pulse"}).ids == ()
    assert db.forget(samples, where={"kind": "steps"}).ids == ()
    assert db.forget(samples, about="Ana").ids == ()
    early = {"event_time": {"$lte": "2024-05-01T00:01:00Z"}}
    assert db.forget(samples, where=early).ids == tuple(samples[:2])


def test_report_names_samples_asked_for_by_id(db: memdb.Database) -> None:
    samples = readings(db, 2)
    derived = db.remember("resting pulse is 60", derived_from=[samples[0]]).id
    report = db.report(samples[:1])
    assert [m.id for m in report.items] == samples[:1]
    assert [m.id for m in report.derived] == [derived]


def test_samples_are_counted_by_stats_and_not_by_count(db: memdb.Database) -> None:
    readings(db, 3)
    readings(db, 2, stream="watch")
    db.remember("a note")
    assert db.count() == 1
    found = db.stats()["series"]
    assert (found["count"], found["samples"]) == (2, 5)
    assert found["bytes"] > 0
    assert db.namespaces() == ["default"]


def test_the_command_line_lists_the_trash(cli: Runner) -> None:
    cli.fill()
    batch = cli.ask("forget", "--tag", "ana")["batch"]
    (listed,) = cli.ask("list", "--trash")["batches"]
    assert listed["batch"] == batch
    assert [m["text"] for m in listed["items"]] == ["Ana saw the dentist"]
    out = cli.run("list", "--trash")[1]
    assert batch in out
    assert "Ana saw the dentist" in out
    status, _, err = cli.run("list", "--trash", "--tag", "health")
    assert status == 1
    assert "--trash" in err
    cli.ask("restore", "--batch", batch)
    assert cli.ask("list", "--trash") == {"batches": []}
    assert "empty" in cli.run("list", "--trash")[1]


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Runner:
    with memdb.open(tmp_path / "db", embedder="none"):
        pass
    return Runner(tmp_path / "db", capsys, monkeypatch)
