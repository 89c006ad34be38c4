"""Every form of a time, every way a zone can be odd, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import InvalidArgument
from memdb.times import (
    MAX_MICROS,
    MIN_MICROS,
    SystemClock,
    TimeSpan,
    load_zone,
    local_zone,
    parse_duration,
    parse_time,
    zone_name,
)
from memdb.types import from_micros, to_micros

VIENNA = ZoneInfo("Europe/Vienna")


def parsed(value: Any, zone: tzinfo = VIENNA) -> TimeSpan:
    return parse_time(value, zone=zone, field="event_time")


def utc(*parts: int) -> int:
    return to_micros(datetime(*parts, tzinfo=UTC))  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("value", "start", "end", "precision", "zone"),
    [
        ("2024", utc(2023, 12, 31, 23), utc(2024, 12, 31, 23), "year", "Europe/Vienna"),
        ("2024-02", utc(2024, 1, 31, 23), utc(2024, 2, 29, 23), "month", "Europe/Vienna"),
        ("2024-12", utc(2024, 11, 30, 23), utc(2024, 12, 31, 23), "month", "Europe/Vienna"),
        ("2024-12-31", utc(2024, 12, 30, 23), utc(2024, 12, 31, 23), "day", "Europe/Vienna"),
        (date(2024, 7, 1), utc(2024, 6, 30, 22), utc(2024, 7, 1, 22), "day", "Europe/Vienna"),
        (
            "2024-07-01T09:30",
            utc(2024, 7, 1, 7, 30),
            utc(2024, 7, 1, 7, 31),
            "minute",
            "Europe/Vienna",
        ),
        ("2024-07-01 09:30Z", utc(2024, 7, 1, 9, 30), utc(2024, 7, 1, 9, 31), "minute", "UTC"),
        ("2024-07-01T09:30:05+02:00", utc(2024, 7, 1, 7, 30, 5), None, "exact", "+02:00"),
        ("2024-07-01T09:30:05-0730", utc(2024, 7, 1, 17, 0, 5), None, "exact", "-07:30"),
        ("2024-07-01T09:30:05+00", utc(2024, 7, 1, 9, 30, 5), None, "exact", "UTC"),
        ("2024-07-01t09:30:05.5z", utc(2024, 7, 1, 9, 30, 5, 500_000), None, "exact", "UTC"),
        (
            "2024-07-01T09:30:05.123456789Z",
            utc(2024, 7, 1, 9, 30, 5, 123_456),
            None,
            "exact",
            "UTC",
        ),
        ("20240701T093005Z", utc(2024, 7, 1, 9, 30, 5), None, "exact", "UTC"),
        ("20240701T093005", utc(2024, 7, 1, 7, 30, 5), None, "exact", "Europe/Vienna"),
        (datetime(2024, 7, 1, 9), utc(2024, 7, 1, 7), None, "exact", "Europe/Vienna"),
        (datetime(2024, 7, 1, 9, tzinfo=UTC), utc(2024, 7, 1, 9), None, "exact", "UTC"),
        (
            datetime(2024, 7, 1, 9, tzinfo=timezone(-timedelta(hours=3))),
            utc(2024, 7, 1, 12),
            None,
            "exact",
            "-03:00",
        ),
    ],
)
def test_each_form_names_its_interval(
    value: Any, start: int, end: int | None, precision: str, zone: str
) -> None:
    span = parsed(value)
    last = start + 1 if end is None else end
    assert span == TimeSpan(start, last, zone, precision)  # type: ignore[arg-type]
    assert span.start == from_micros(start)


@pytest.mark.parametrize(
    "value",
    [
        0, 1_714_000_000, 1.5, True, None, b"2024", ["2024"], timedelta(1), "", "yesterday", "24",
        "20240701", "2024-13", "2024-00", "2024-02-30", "2023-02-29", "0000", "2024-7-1", "+2024",
        "2024-07-01T25:00", "2024-07-01T09", "2024-07-01T09:60", "2024-07-01T09:30:60",
        "2024-07-01T09:30+25:00", "2024-07-01T09:30+02:75", "2024-07-01T", "2024-07-01Z",
        "٢٠٢٤", "2024" * 30, "2024-W01-1T10:00", "20240701T25:00", "20241301T000000", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_naming_the_field(value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parsed(value)
    assert caught.value.field == "event_time"
    assert "event_time" in caught.value.message


def test_the_ends_of_the_calendar_are_reached_and_not_passed() -> None:
    last = parsed("9999-12-31", UTC)
    assert (last.end_us, last.end) == (MAX_MICROS + 1, None)
    assert parsed("9999", ZoneInfo("America/New_York")).end_us == MAX_MICROS + 1
    assert parsed("9999-12", UTC).end_us == MAX_MICROS + 1
    assert parsed("0001-01-01", UTC).start_us == MIN_MICROS
    assert parsed("9999-12-31T23:59:59.999999Z").start_us == MAX_MICROS
    for text, zone in [
        ("0001-01-01", ZoneInfo("Asia/Tokyo")),
        ("9999-12-31T23:00:00", ZoneInfo("America/New_York")),
        ("0001-01-01T00:00:00+01:00", UTC),
    ]:
        with pytest.raises(InvalidArgument):
            parsed(text, zone)


def test_a_local_time_that_was_skipped_takes_the_offset_from_before() -> None:
    assert parsed("2024-03-31T02:30:00").start_us == utc(2024, 3, 31, 1, 30)


def test_a_local_time_that_came_twice_is_the_first_unless_the_datetime_says_so() -> None:
    twice = datetime(2024, 10, 27, 2, 30)
    assert parsed("2024-10-27T02:30:00").start_us == utc(2024, 10, 27, 0, 30)
    assert parsed(twice).start_us == utc(2024, 10, 27, 0, 30)
    assert parsed(twice.replace(fold=1)).start_us == utc(2024, 10, 27, 1, 30)


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-10-28", 24)]
)
def test_a_day_is_as_long_as_its_clocks_made_it(day: str, hours: int) -> None:
    span = parsed(day)
    assert span.end_us - span.start_us == hours * 3_600_000_000


@pytest.mark.parametrize(
    ("zone", "day", "start"),
    [
        ("America/Sao_Paulo", "2018-11-04", utc(2018, 11, 4, 3)),  # 00:00 became 01:00
        ("America/Havana", "2024-11-03", utc(2024, 11, 3, 4)),  # 01:00 became 00:00
        ("America/Toronto", "1919-03-31", utc(1919, 3, 31, 4, 30)),  # 23:30 became 00:30
        ("Asia/Beirut", "2024-03-31", utc(2024, 3, 30, 22)),
    ],
)
def test_a_day_without_midnight_begins_at_its_first_instant(
    zone: str, day: str, start: int
) -> None:
    span = parsed(day, ZoneInfo(zone))
    assert span.start_us == start
    assert span.start.astimezone(ZoneInfo(zone)).date() == date.fromisoformat(day)
    before = from_micros(start - 1).astimezone(ZoneInfo(zone)).date()
    assert before < date.fromisoformat(day)


def test_a_day_its_zone_skipped_is_empty_and_leaves_no_hole() -> None:
    apia = ZoneInfo("Pacific/Apia")
    before, skipped, after = (parsed(f"2011-12-{d}", apia) for d in (29, 30, 31))
    assert before.end_us == skipped.start_us == skipped.end_us == after.start_us


@given(
    st.dates(date(1850, 1, 1), date(2200, 1, 1)),
    st.sampled_from(
        [
            "Europe/Vienna",
            "America/Sao_Paulo",
            "Pacific/Apia",
            "Asia/Kathmandu",
            "Africa/Monrovia",
            "America/Havana",
            "Asia/Beirut",
            "Australia/Lord_Howe",
            "America/Toronto",
            "UTC",
        ]
    ),
)
def test_days_follow_each_other_and_hold_their_own_instants(day: date, name: str) -> None:
    zone = ZoneInfo(name)
    span, following = parsed(day, zone), parsed(day + timedelta(1), zone)
    assert span.end_us == following.start_us
    assert span.start_us <= span.end_us
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    if noon.astimezone(UTC).astimezone(zone).date() == day:
        assert span.start_us <= to_micros(noon.astimezone(UTC)) < span.end_us


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))
def test_an_iso_string_with_offset_names_the_same_instant_as_its_datetime(moment: datetime) -> None:
    if (moment.utcoffset() or timedelta()).total_seconds() % 60 == 0:
        text = moment.isoformat(timespec="microseconds")
        assert parsed(text).start_us == parsed(moment).start_us == to_micros(moment)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("1h30m", timedelta(minutes=90)),
        (" 2w 1d ", timedelta(days=15)),
        ("1.5h", timedelta(minutes=90)),
        ("45s", timedelta(seconds=45)),
        (timedelta(seconds=1), timedelta(seconds=1)),
    ],
)
def test_durations_are_read(value: Any, expected: timedelta) -> None:
    assert parse_duration(value, field="expires_in") == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "90",
        90,
        1.5,
        None,
        "d",
        "3 months",
        "1y",
        "-1d",
        "0s",
        timedelta(),
        -timedelta(1),
        "9" * 60 + "w",
        "1h" * 40,
        "٣d",
        "1d!",
    ],
)
def test_what_is_no_positive_duration_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_duration(value, field="expires_in")
    assert caught.value.field == "expires_in"


@pytest.mark.parametrize("name", ["Europe/Vienna", "UTC", "+02:00", "-09:30"])
def test_a_zone_is_found_by_the_name_it_is_stored_under(name: str) -> None:
    assert zone_name(load_zone(name)) == name


@pytest.mark.parametrize("name", ["Nowhere/City", "", "../etc/passwd", "/etc/localtime", "+25:00"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_zone(name, field="time_zone")
    assert caught.value.field == "time_zone"


def test_the_machines_zone_follows_TZ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert zone_name(local_zone()) == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "CET-1CEST")
    assert zone_name(local_zone()) == "UTC"
    monkeypatch.delenv("TZ")
    assert zone_name(local_zone())


def test_the_systems_clock_is_aware() -> None:
    assert SystemClock().now().utcoffset() == timedelta()
