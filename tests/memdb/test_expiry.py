"""Expiry: from its instant nothing shows what has expired; then it is swept into the trash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import memdb
from tests.memdb.clock import Clock

VECTOR = np.arange(16, dtype=np.float32)


@pytest.fixture
def still(db: memdb.Database) -> Iterator[memdb.Database]:
    """Nothing is swept meanwhile: what is asked of the faces does not depend on it."""
    with db._maintenance.paused():
        yield db


def faces(db: memdb.Database, id: str) -> dict[str, Callable[[], Any]]:
    """Every face that reads, each giving something true where it shows the memory."""
    return {
        "get": lambda: db.get(id),
        "get_many": lambda: [m for m in db.get_many([id]) if m is not None],
        "external id": lambda: db.get(external_id="x"),
        "versions": lambda: db.versions(id),
        "iter": lambda: list(db.iter()),
        "list": lambda: db.list().items,
        "list by record": lambda: db.list(order_by="recorded_at").items,
        "count": lambda: db.count(),
        "count where": lambda: db.count({"tags": "soon"}),
        "values": lambda: db.values("tags"),
        "namespaces": lambda: db.namespaces(),
        "lexical": lambda: db.recall("parking", mode="lexical").items,
        "vector": lambda: db.recall(vector=VECTOR, mode="vector").items,
        "exact": lambda: db.recall(vector=VECTOR, mode="vector", exact=True).items,
        "within": lambda: db.recall_within(2.0, vector=VECTOR).items,
        "context": lambda: db.context("parking").items,
        "history": lambda: list(db.history.range(stream="diary")),
        "report": lambda: db.report(where={"tags": "soon"}).items,
        "forget": lambda: db.forget(where={"tags": "soon"}).ids,
        "stats": lambda: db.stats()["memories"],
    }


def test_no_face_shows_it_from_the_very_instant(still: memdb.Database, clock: Clock) -> None:
    written = still.remember(
        "parking spot 7",
        expires_in="2h",
        external_id="x",
        tags=["soon"],
        stream="diary",
        event_time=clock.now(),
        vector=VECTOR,
    )
    clock.advance(hours=2, microseconds=-1)
    asked = faces(still, written.id)
    shown = [name for name, ask in asked.items() if name != "forget" and not ask()]
    assert shown == [], "until then every face shows it"
    clock.advance(microseconds=1)
    assert [name for name, ask in asked.items() if ask()] == []
    with pytest.raises(memdb.NotFound):
        still.update(written.id, tags=["later"])
    again = still.remember("parking spot 7", external_id="x", expires_in="2h")
    assert again.status == "inserted"


def test_facts_expire_and_can_be_set_anew(still: memdb.Database, clock: Clock) -> None:
    still.profile.set("hotel", "Aurora", expires_in="1d")
    assert still.profile["hotel"] == "Aurora"
    clock.advance(days=1)
    assert still.profile.get("hotel") is None
    assert still.profile.items() == {}
    assert still.profile.versions("hotel") == []
    assert "hotel" not in still.profile
    assert still.profile.set("hotel", "Aurora").status == "inserted"
    assert still.profile["hotel"] == "Aurora"


def test_the_same_content_told_again_after_it_expired_is_new(
    still: memdb.Database, clock: Clock
) -> None:
    still.remember("the code is 4711", expires_at="2025-01-02T00:00Z")
    clock.moment = clock.moment.replace(year=2026)
    assert still.remember("the code is 4711").status == "inserted"
    assert still.count() == 1


def test_it_is_swept_into_the_trash_and_can_be_brought_back_for_good(
    db: memdb.Database, clock: Clock
) -> None:
    gone = db.remember("parking spot 7", expires_in="2h", vector=VECTOR).id
    fact = db.profile.set("hotel", "Aurora", expires_in="2h").id
    kept = db.remember("the house", expires_in="9d").id
    clock.advance(hours=2)
    assert db._maintenance.drain()
    (batch,) = db.trash()
    assert batch.expired
    assert {m.id for m in batch.items} == {gone, fact}
    assert [m.id for m in db.iter()] == [kept]
    assert db.check()["ok"]
    clock.advance(days=6)
    assert set(db.restore(batch=batch.batch)) == {gone, fact}
    assert db[gone].expires_at is None
    assert db.profile["hotel"] == "Aurora"
    assert db.trash() == []
    assert db.check()["ok"]
    assert {m.id for m in db.iter()} == {gone, fact, kept}


def test_the_sweep_needs_no_write_to_begin(db: memdb.Database, clock: Clock) -> None:
    db.remember("parking spot 7", expires_in="2h")
    clock.advance(hours=3)
    maintenance = db._maintenance
    maintenance._looked_at = float("-inf")  # a second has passed
    assert maintenance._moved()
    assert maintenance.drain()
    assert len(db.trash()) == 1


def test_seven_days_after_it_cannot_be_brought_back(db: memdb.Database, clock: Clock) -> None:
    gone = db.remember("parking spot 7", expires_in="2h").id
    clock.advance(hours=2)
    db._maintenance.drain()
    clock.advance(days=7, seconds=1)
    assert db.trash() == []
    with pytest.raises(memdb.NotFound):
        db.restore(gone)
