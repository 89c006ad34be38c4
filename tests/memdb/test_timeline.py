"""The timeline: everything where it stands in time, page by page, or what a question names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memdb
from tests.memdb.clock import Clock

NOW = datetime(2024, 6, 12, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    with memdb.open(
        tmp_path_factory.mktemp("life") / "db", embedder="none", clock=Clock(NOW)
    ) as db:
        db.settings.time_zone = "UTC"
        db.remember("moved in with Ana", event_time="2024-05-02", kind="event")
        db.profile.set("address", "12 Elm St", valid_from="2020-03-01")
        db.profile.set("address", "7 Oak Lane", valid_from="2024-05-01")
        db.remember("a thought about moving")
        db.remember("sold the car", event_time="2022", kind="event")
        db.remember("a part of a book about moving", kind="chunk")
        yield db


ALL = [
    "user address: 12 Elm St",
    "sold the car",
    "user address: 7 Oak Lane",
    "moved in with Ana",
    "a thought about moving",
]


def texts(page: memdb.Page) -> list[str]:
    return [memory.text or "" for memory in page]


def test_everything_stands_where_it_happened(life: memdb.Database) -> None:
    assert texts(life.timeline()) == ALL
    assert texts(life.timeline(descending=True)) == ALL[::-1]
    assert texts(life.timeline(start="2022", end="2024-05-02")) == ALL[1:3]
    assert texts(life.timeline(where={"kind": "event"})) == [ALL[1], ALL[3]]


@given(st.integers(1, 7), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_follow_one_another(life: memdb.Database, limit: int, descending: bool) -> None:
    found: list[str] = []
    cursor = None
    for _ in range(9):
        page = life.timeline(limit=limit, cursor=cursor, descending=descending)
        assert len(page) <= limit
        found += texts(page)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == (ALL[::-1] if descending else ALL)


def test_a_question_is_answered_in_order_of_time(life: memdb.Database) -> None:
    assert texts(life.timeline("where do I live?", limit=1)) == [ALL[0], ALL[2]]
    assert texts(life.timeline("what happened in May 2024?", where={"kind": "event"})) == [ALL[3]]
    assert texts(life.timeline("moving", start="2024-06", limit=2)) == [ALL[4]]


def test_bad_arguments_are_named(life: memdb.Database) -> None:
    with pytest.raises(memdb.InvalidArgument, match="limit"):
        life.timeline(limit=0)
    with pytest.raises(memdb.InvalidArgument, match="start"):
        life.timeline(start="soon")
    cursor = life.timeline(limit=1).next_cursor
    with pytest.raises(memdb.InvalidArgument, match="cursor"):
        life.timeline("moving", cursor=cursor)
    with pytest.raises(memdb.InvalidArgument, match="cursor"):
        life.timeline(descending=True, cursor=cursor)


def test_an_empty_database_has_an_empty_timeline(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        assert len(db.timeline()) == len(db.timeline("anything")) == 0
