"""Recall in time: facts before chatter, times that a question names, and what was true when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memdb
from tests.memdb.clock import Clock

NOW = datetime(2024, 6, 12, 10, tzinfo=UTC)
EVENTS = {
    "Dinner at Luigi's": "2024-03-14",
    "Dinner at the Thai place": "2024-05-29",
    "Dinner at home with soup": "2024-06-11",
    "Went to the dentist": "2023-02-02",
    "Dentist: crown glued": "2024-02-02",
    "Dentist check-up planned": "2024-07-02",
    "Trip to Rome with Ana": "2023-09-01",
    "Bought a suitcase": "2023-08-25",
    "Bought a bicycle": "2023-10-25",
    "Bought an umbrella": "2022-08-25",
    "Ran a marathon": "2023-10-01",
}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    clock = Clock(NOW)
    with memdb.open(tmp_path_factory.mktemp("life") / "db", clock=clock) as db:
        db.settings.time_zone = "Europe/Vienna"
        db.profile.set("address", "12 Elm St", valid_from="2020-03-01")
        db.profile.set("address", "7 Oak Lane", valid_from="2024-05-01")
        db.profile.set("birthdate", "1990-04-02", valid_from="1990-04-02")
        db.profile.set("birthdate", "1985-01-01", subject="Ana", valid_from="1985-01-01")
        db.remember("we talked about where I live and my address at length", kind="message")
        db.remember_many(
            {"text": text, "kind": "event", "event_time": day} for text, day in EVENTS.items()
        )
        yield db


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("where do I live?", "user address: 7 Oak Lane"),
        ("when was I born?", "user birthdate: 1990-04-02"),
        ("how old is Ana", "Ana birthdate: 1985-01-01"),
        ("what did I eat for dinner last March?", "Dinner at Luigi's"),
        ("what did I have for dinner two weeks ago", "Dinner at the Thai place"),
        ("what did I do yesterday?", "Dinner at home with soup"),
        ("when did I last go to the dentist?", "Dentist: crown glued"),
        ("when was my first dentist visit", "Went to the dentist"),
        ("when is my next dentist appointment", "Dentist check-up planned"),
        ("what did I buy before the trip to Rome?", "Bought a suitcase"),
        ("what did I do after the trip to Rome?", "Ran a marathon"),
    ],
)
def test_the_right_memory_is_first(life: memdb.Database, question: str, answer: str) -> None:
    assert life.recall(question, k=3)[0].text == answer


def test_a_fact_brings_its_earlier_values(life: memdb.Database) -> None:
    hit = life.recall("where do I live?", explain=True)[0]
    assert [value.data for value in hit.history] == ["12 Elm St"]
    assert "user.address" in hit.why.words["profile"]
    then = life.recall("where do I live?", as_of="2022", k=1)[0]
    assert (then.memory.data, then.history) == ("12 Elm St", ())
    packed = life.context("where do I live?")
    roles = {item.text: item.role for item in packed.items}
    assert roles["user address: 7 Oak Lane"] == "fact"
    assert roles["user address: 12 Elm St"] == "earlier"
    assert "12 Elm St (until 2024-05-01)" in packed.text


def test_the_time_is_a_filter_on_request_and_nothing_when_off(life: memdb.Database) -> None:
    found = life.recall("what did I buy in 2022?", time="filter")
    assert found[0].text == "Bought an umbrella"
    assert {hit.memory.kind for hit in found[1:]} == {"profile"}  # what was true then, too
    assert life.recall("where did I live in 2022?", k=1, time="filter")[0].memory.data == (
        "12 Elm St"
    )
    off = life.recall("what did I do yesterday?", time="off", explain=True)
    assert "time" not in off[0].why.stages
    assert "words" not in off.plan["stages"]["time"]
    with pytest.raises(memdb.InvalidArgument, match="time"):
        life.recall("x", time="later")  # type: ignore[arg-type]


def test_the_plan_and_every_part_say_what_time_was_meant(life: memdb.Database) -> None:
    found = life.recall("what did I eat for dinner last March?", explain=True)
    stage = found.plan["stages"]["time"]
    assert stage["words"] == "last March"
    assert stage["start"] == datetime(2024, 2, 29, 23, tzinfo=UTC)
    assert "last March" in found[0].why.words["time"]
    for hit in found:
        total = sum(hit.why.stages.values())
        assert hit.score == pytest.approx(1 / (1 + 2.718281828459045**-total))


def test_an_event_that_nobody_knows_bounds_nothing(life: memdb.Database) -> None:
    asked = "what did I buy before the coronation?"
    with_time, without = life.recall(asked), life.recall(asked, time="off")
    assert [hit.id for hit in with_time] == [hit.id for hit in without]


_MOMENTS = st.integers(0, 2000).map(lambda day: datetime(2019, 1, 1, tzinfo=UTC) + timedelta(day))


@given(
    st.lists(st.tuples(st.sampled_from(["address", "job"]), _MOMENTS), min_size=2, max_size=6),
    st.one_of(st.none(), _MOMENTS),
)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_only_what_is_true_at_the_time_asked_for_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[tuple[str, datetime]],
    as_of: datetime | None,
) -> None:
    folder: Path = tmp_path_factory.mktemp("facts") / "db"
    with memdb.open(folder, embedder="none", clock=Clock(NOW)) as db:
        for number, (key, since) in enumerate(values):
            db.profile.set(key, f"place {number}", valid_from=since)
        for key, question in (("address", "where do I live?"), ("job", "what is my job?")):
            true = db.profile.get(key, as_of=as_of or NOW)
            found = [h for h in db.recall(question, as_of=as_of) if h.memory.key == key]
            assert [hit.memory.data for hit in found] == ([] if true is None else [true])
            if found:
                older = [value.data for value in found[0].history]
                assert found[0].memory.data not in older
