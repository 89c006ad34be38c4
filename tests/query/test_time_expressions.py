"""Times in questions: what is read, in whose zone, and what is left alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.query import calendar_days, time_expressions, time_tokens
from memdb.query.time_expressions import read
from memdb.types import from_micros

VIENNA = ZoneInfo("Europe/Vienna")
NOW = datetime(2024, 6, 12, 10, tzinfo=UTC)  # a Wednesday

DAYS = {
    "what did I do yesterday?": ("2024-06-11", "2024-06-12"),
    "the day before yesterday": ("2024-06-10", "2024-06-11"),
    "what did Ana eat last March?": ("2024-03-01", "2024-04-01"),
    "how often in 2023 did I run": ("2023-01-01", "2024-01-01"),
    "the concert two weeks ago": ("2024-05-27", "2024-06-03"),
    "a couple of weeks ago": ("2024-05-27", "2024-06-03"),
    "what happened in the summer of 2022": ("2022-06-01", "2022-09-01"),
    "since May": ("2024-05-01", "2024-06-12"),
    "since 2021": ("2021-01-01", "2024-06-12"),
    "before 2020": (None, "2020-01-01"),
    "until June": (None, "2024-07-01"),
    "last friday evening": ("2024-06-07", "2024-06-08"),
    "on Friday last week": ("2024-06-07", "2024-06-08"),
    "in March last year": ("2023-03-01", "2023-04-01"),
    "next week": ("2024-06-17", "2024-06-24"),
    "what is planned for Friday?": ("2024-06-14", "2024-06-15"),
    "between May and July 2023": ("2023-05-01", "2023-08-01"),
    "between 2020 and 2022": ("2020-01-01", "2023-01-01"),
    "from March to May": ("2024-03-01", "2024-06-01"),
    "on 8 May 2023?": ("2023-05-08", "2023-05-09"),
    "on May 8th, 2023": ("2023-05-08", "2023-05-09"),
    "on 2023-05-08": ("2023-05-08", "2023-05-09"),
    "on 8.5.2023": ("2023-05-08", "2023-05-09"),
    "in December": ("2023-12-01", "2024-01-01"),
    "the past three months": ("2024-03-12", "2024-06-13"),
    "last weekend": ("2024-06-08", "2024-06-10"),
    "this year": ("2024-01-01", "2025-01-01"),
    "wann war ich letzten Mai in Berlin": ("2024-05-01", "2024-06-01"),
    "vor zwei Wochen": ("2024-05-27", "2024-06-03"),
    "im Sommer 2022": ("2022-06-01", "2022-09-01"),
    "il y a deux semaines": ("2024-05-27", "2024-06-03"),
    "la semaine dernière": ("2024-06-03", "2024-06-10"),
    "el mes pasado": ("2024-05-01", "2024-06-01"),
    "hace tres días": ("2024-06-09", "2024-06-10"),
    "l'anno scorso": ("2023-01-01", "2024-01-01"),
    "twee weken geleden": ("2024-05-27", "2024-06-03"),
    "昨天我们吃了什么": ("2024-06-11", "2024-06-12"),
    "2023年5月8日": ("2023-05-08", "2023-05-09"),
}

NOTHING = """
where do I live
may I see the sun
who is Mark
What is the second one on the list of 12?
can I get a 10 am slot
how do I make march soup
When is May's birthday?
What does Ana do for work?
what is the first name of Ben
who looks after the cat
guten morgen
what is in the box
"""


def local_days(question: str, zone: ZoneInfo = VIENNA) -> tuple[str | None, str | None]:
    found = read(question, now=NOW, zone=zone)
    assert found is not None, question
    days = [
        None if micros is None else str(from_micros(micros).astimezone(zone).date())
        for micros in (found.start_us, found.end_us)
    ]
    return days[0], days[1]


@pytest.mark.parametrize("question", DAYS)
def test_a_time_is_read_as_local_days(question: str) -> None:
    assert local_days(question) == DAYS[question]


@pytest.mark.parametrize("question", NOTHING.strip().splitlines())
def test_what_only_looks_like_a_time_is_none(question: str) -> None:
    assert read(question, now=NOW, zone=VIENNA) is None


def test_days_begin_where_the_zone_says_and_seasons_where_the_hemisphere_does() -> None:
    late = datetime(2024, 6, 12, 23, 30, tzinfo=UTC)  # the 13th in Vienna
    found = read("yesterday", now=late, zone=VIENNA)
    assert found is not None and found.start_us is not None
    assert from_micros(found.start_us) == datetime(2024, 6, 11, 22, tzinfo=UTC)
    assert local_days("in the summer of 2022", ZoneInfo("Australia/Sydney")) == (
        "2022-12-01",
        "2023-03-01",
    )


@pytest.mark.parametrize(
    ("question", "relation", "event"),
    [
        ("what did I buy before the trip to Rome?", "before", "trip to Rome"),
        ("after my wedding, where did we go", "after", "wedding"),
        ("what happened during the flood", "during", "flood"),
        ("was machte ich nach dem Urlaub", "after", "Urlaub"),
    ],
)
def test_an_event_is_named_in_words(question: str, relation: str, event: str) -> None:
    found = read(question, now=NOW, zone=VIENNA)
    assert found is not None
    assert (found.relation, found.event, found.bounded) == (relation, event, False)


@pytest.mark.parametrize(
    ("question", "order"),
    [
        ("When did I last see Ana?", "last"),
        ("what was my first job", "first"),
        ("Ana's current job", "last"),
        ("when is my next dentist appointment", "next"),
        ("the most recent blood test", "last"),
    ],
)
def test_an_order_is_read(question: str, order: str) -> None:
    found = read(question, now=NOW, zone=VIENNA)
    assert found is not None and found.order == order


_SOME = st.sampled_from(
    "last next in on the of ago two 12 2023 march may friday week month year since before after"
    " between and from to summer yesterday day vor letzten hace il y a 31 29 february 2024-02-30"
    " night first 0 9999 years".split()
)


@given(st.lists(_SOME, max_size=8).map(" ".join) | st.text(max_size=60))
@settings(max_examples=400, deadline=None)
def test_whatever_is_asked_what_is_read_is_an_interval(question: str) -> None:
    found = read(question, now=NOW, zone=VIENNA)
    if found is not None and found.start_us is not None and found.end_us is not None:
        assert found.start_us < found.end_us


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(0, 6), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_the_last_and_the_next_of_what_recurs_lie_next_to_today(
    today: date, number: int, month: int
) -> None:
    for recurring in (calendar_days.weekday(number), calendar_days.month(month)):
        before = calendar_days.latest(recurring, today, begun=False)
        begun = calendar_days.latest(recurring, today, begun=True)
        after = calendar_days.following(recurring, today)
        assert before is not None and begun is not None and after is not None
        assert before.after <= today and begun.first <= today < after.first
        between = recurring(begun.after, after.first) if begun.after < after.first else None
        assert between is None or between.first >= after.first or between.after <= begun.after
        assert after.first - begun.first <= timedelta(366)


_TELLING = sorted(time_tokens._BEGINNINGS | time_tokens.ORDERING | time_tokens.ANCHORING)
_FILLERS = ["ana", "trip", "rome", "eat", "name", "most", "look", "morning", "night", "afternoon"]
_NUMBERS = ["3", "8th", "12.", "31", "2023", "2023-05", "2023-05-08", "8.5.2023", "9999", "٣"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_TELLING) | st.sampled_from(_FILLERS + _NUMBERS), max_size=7))
def test_the_grammar_reads_nothing_where_it_is_not_tried(words: list[str]) -> None:
    question, everywhere = " ".join(words), pytest.MonkeyPatch()
    found = read(question, now=NOW, zone=UTC)
    everywhere.setattr(time_expressions, "may_begin", lambda word: True)
    everywhere.setattr(time_expressions, "ORDERING", frozenset(words))
    everywhere.setattr(time_expressions, "ANCHORING", frozenset(words))
    try:
        assert read(question, now=NOW, zone=UTC) == found
    finally:
        everywhere.undo()
