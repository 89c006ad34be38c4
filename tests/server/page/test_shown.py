"""How times, sizes and reasons are put into words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb import Hit, Memory, Why
from memdb.server.page import shown, why
from memdb.server.page.choosing import Chosen, day_after

NOW = datetime(2024, 5, 17, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "precision", "words", "exact"),
    [
        (
            "2024-05-17T11:59:50",
            "exact",
            "just now",
            "Friday 17 May 2024, 12:59:50 (Europe/London)",
        ),
        (
            "2024-05-17T11:20:00",
            "minute",
            "40 min ago",
            "Friday 17 May 2024, 12:20 (Europe/London)",
        ),
        ("2024-05-17T12:20:00", "exact", "in 20 min", "Friday 17 May 2024, 13:20:00"),
        ("2024-05-17T06:00:00", "exact", "today, 07:00", "Friday 17 May 2024, 07:00:00"),
        ("2024-05-16T23:30:00", "exact", "today, 00:30", "Friday 17 May 2024, 00:30:00"),
        ("2024-05-16T06:00:00", "minute", "yesterday, 07:00", "Thursday 16 May 2024, 07:00"),
        ("2024-05-14T06:00:00", "day", "3 days ago", "Tuesday 14 May 2024"),
        ("2024-05-20T06:00:00", "exact", "in 3 days", "Monday 20 May 2024, 07:00:00"),
        ("2024-02-04T09:30:00", "exact", "4 Feb 2024", "Sunday 4 Feb 2024, 09:30:00"),
        ("2023-06-10T00:00:00", "year", "2023", "2023"),
        ("2023-06-10T00:00:00", "month", "Jun 2023", "Jun 2023"),
    ],
)
def test_a_moment_near_is_relative_and_one_far_off_is_a_date(
    moment: str, precision: str, words: str, exact: str
) -> None:
    zone = shown.zone_of("Europe/London")
    found = shown.when(datetime.fromisoformat(moment + "+00:00"), zone, NOW, precision)
    assert found.words == words
    assert found.exact.startswith(exact)


def test_a_moment_says_the_exact_time_to_whoever_points_at_it() -> None:
    found = shown.when(NOW - timedelta(days=400), shown.zone_of("+02:00"), NOW)
    assert found.__html__() == (
        '<time datetime="2023-04-13T12:00:00+00:00"'
        ' title="Thursday 13 Apr 2023, 14:00:00 (UTC+02:00)">13 Apr 2023</time>'
    )


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28), timezones=st.just(UTC)))
def test_every_moment_has_words(moment: datetime) -> None:
    assert shown.when(moment, shown.zone_of("Pacific/Apia"), NOW).words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (1_840_000, "1.8 MB")],
)
def test_bytes_are_counted_in_thousands(count: int, words: str) -> None:
    assert shown.size(count) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("file:///home/ana/notes/my%20recipes.md#L8-L11", "my recipes.md, lines 8-11"),
        ("app:whatsapp", "whatsapp"),
        ("agent:planner", "planner (agent)"),
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("cli", "command line"),
    ],
)
def test_a_source_is_named_as_a_person_would(source: str, words: str) -> None:
    assert shown.source_words(source) == words


def test_a_fact_is_shown_by_its_name_and_value() -> None:
    fact = Memory(id="1", kind="profile", subject="Ana", key="shoe_size", data=33)
    assert shown.words_of(fact) == "shoe size: 33"
    assert shown.words_of(Memory(id="1", data={"a": [1]})) == '{"a": [1]}'


def test_the_reasons_are_in_words_and_the_bars_in_proportion() -> None:
    hit = Hit(
        Memory(id="1", text="x"),
        0.9,
        Why(
            terms=("eat", "ana"),
            stages={"base": -4.0, "lexical": 2.0, "vector": -1.0, "time": 0.0, "profile": 8.0},
            words={"vector": "similarity 0.20 to the question, where 0.31 is usual"},
        ),
    )
    parts = {part.name: part for part in why.parts(hit)}
    assert list(parts) == ["base", "profile", "lexical", "vector"]
    assert (parts["profile"].left, parts["profile"].width) == (100, 100)
    assert (parts["base"].left, parts["base"].width) == (50, 50)
    assert (parts["lexical"].left, parts["lexical"].width) == (100, 25)
    assert parts["vector"].sign == "against"
    assert parts["lexical"].words == "it holds “eat” and “ana”"
    assert "not close to what the question means" in parts["vector"].words
    assert [why.strength(score) for score in (0.9, 0.6, 0.3, 0.01)] == [
        *("very likely", "likely", "possible", "unlikely")
    ]


@given(st.dictionaries(st.sampled_from(list(why.TITLES)), st.floats(-50, 50)))
def test_no_bar_leaves_its_picture(stages: dict[str, float]) -> None:
    for part in why.parts(Hit(Memory(id="1"), 0.5, Why(stages=stages))):
        assert part.left >= 0
        assert part.left + part.width <= 2 * why.HALF


def test_what_is_chosen_becomes_a_filter() -> None:
    chosen = Chosen.of(
        {"kind": "event", "about": "Ana", "source": "app:*", "since": "2024", "x": "y"}
    )
    assert chosen.where == {
        "$and": [
            {"kind": "event"},
            {"$or": [{"about": "Ana"}, {"subject": "Ana"}]},
            {"source": {"$prefix": "app:"}},
        ]
    }
    assert chosen.without("kind") == {"about": "Ana", "source": "app:*", "since": "2024"}
    assert Chosen.of({"before": "2024"}).where_with_times() == {"event_time": {"$lt": "2024"}}
    assert Chosen.of({}).where is None
    assert day_after("2024-02-28") == "2024-02-29"
    assert day_after("someday") is None
