"""What happened, in order of time: pages, ranges both ways, samples among messages, columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import memdb


def test_pages_cover_everything_once_in_order(db: memdb.Database) -> None:
    for i in range(25):
        db.remember(f"n{i}", event_time=f"2024-01-{(i * 7) % 25 + 1:02d}")
    db.remember("timeless")
    for descending in (True, False):
        seen, cursor = [], None
        while True:
            page = db.list(limit=4, descending=descending, cursor=cursor)
            seen += list(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        times = [m.event_time for m in seen[:-1]]
        assert times == sorted(times, reverse=descending)  # type: ignore[type-var]
        assert seen[-1].text == "timeless"
        assert len({m.id for m in seen}) == 26
    with pytest.raises(memdb.InvalidArgument):
        db.list(cursor="nonsense")


def test_a_range_is_half_open_and_runs_both_ways(db: memdb.Database) -> None:
    for day in range(1, 11):
        db.history.append("message", f"day {day}", event_time=f"2024-05-{day:02d}", stream="s")
    db.history.append("call", "a call", event_time="2024-05-04")
    days = [m.text for m in db.history.range("message", "2024-05-03", "2024-05-06")]
    assert days == ["day 3", "day 4", "day 5"]
    back = db.history.range("message", "2024-05-03", "2024-05-06", reverse=True)
    assert [m.text for m in back] == days[::-1]
    assert len(list(db.history.range(None, "2024-05-04", "2024-05-05"))) == 2
    assert len(list(db.history.range("message", limit=2))) == 2
    assert [m.position for m in db.history.range("message", stream="s")] == list(range(10))


def test_a_long_range_is_read_across_chunks_while_writes_go_on(db: memdb.Database) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    db.remember_many(
        [
            {"text": f"e{i}", "kind": "event", "event_time": start + timedelta(minutes=i // 3)}
            for i in range(2500)
        ]
    )
    seen = []
    for number, memory in enumerate(db.history.range("event")):
        seen.append(memory.text)
        if number == 1000:
            db.history.append("event", "late", event_time=start - timedelta(days=1))
    assert seen == [f"e{i}" for i in range(2500)]


def test_samples_and_messages_are_read_together_in_time(db: memdb.Database) -> None:
    start = datetime(2024, 5, 1, tzinfo=UTC)
    count = db.history.append_many(
        "heart_rate", [(start + timedelta(minutes=i), {"bpm": 60 + i % 7}) for i in range(3000)]
    )
    assert count == 3000
    single = db.history.append(
        "heart_rate", data={"bpm": 99}, event_time=start + timedelta(minutes=10, seconds=30)
    )
    db.history.append("message", "hello", event_time=start + timedelta(minutes=10, seconds=45))
    everything = list(db.history.range(None, "2024-05-01T00:10:00Z", "2024-05-01T00:12:00Z"))
    assert [m.data if m.text is None else m.text for m in everything] == [
        {"bpm": 63},
        {"bpm": 99},
        "hello",
        {"bpm": 64},
    ]
    times = [m.event_time for m in db.history.range()]
    assert len(times) == 3002 and times == sorted(times)
    assert [m.event_time for m in db.history.range(reverse=True)] == times[::-1]
    assert (
        len(list(db.history.range("heart_rate", where={"event_time": {"$lt": "2024-05-02"}}))) > 1
    )
    assert db[single.id].data == {"bpm": 99}
    assert db.get_many([single.id])[0] == db[single.id]
    assert len(db.recall("hello", mode="lexical")) == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_a_mixed_range_is_the_model_of_it_over_many_chunks(
    db: memdb.Database, reverse: bool
) -> None:
    start = datetime(2024, 5, 1, tzinfo=UTC)
    said = [(start + timedelta(minutes=i % 700), f"m{i}") for i in range(1500)]
    db.remember_many([{"text": text, "event_time": when} for when, text in said])
    felt = [(start + timedelta(minutes=i % 900), {"n": i, "sensor": i % 2}) for i in range(1800)]
    for sensor in (0, 1):
        mine = [one for one in felt if one[1]["sensor"] == sensor]
        db.history.append_many("pulse", mine, stream=f"watch {sensor}")
    low, high = start + timedelta(minutes=100), start + timedelta(minutes=800)
    found = list(db.history.range(None, low, high, reverse=reverse))
    assert len({memory.id for memory in found}) == len(found)
    times = [memory.event_time for memory in found]
    assert times == sorted([time for time in times if time is not None], reverse=reverse)
    model = [(when, text) for when, text in said if low <= when < high]
    model += [(when, str(data)) for when, data in felt if low <= when < high]
    assert sorted((m.event_time, m.text or str(m.data)) for m in found) == sorted(model)
    some = db.history.range(None, low, high, reverse=reverse, where={"source": {"$ne": "x"}})
    assert list(some) == found
    only = db.history.range("pulse", low, high, stream="watch 1", limit=5, reverse=reverse)
    assert list(only) == [m for m in found if m.stream == "watch 1"][:5]


def test_a_range_becomes_an_arrow_table(db: memdb.Database) -> None:
    pytest.importorskip("pyarrow")
    db.history.append("steps", data={"count": 5, "where": {"lat": 1.5}}, event_time="2024-05-01")
    db.history.append("steps", data=7, event_time="2024-05-02")
    table = db.history.to_arrow("steps")
    assert table.column("count").to_pylist() == [5, None]
    assert table.column("where").to_pylist() == ['{"lat":1.5}', None]
