"""Every time and duration a caller gives, read the same way everywhere.

A time that names more than an instant (a year, a month, a day, a minute) is an interval, and an
interval is what this file returns: ``$lte "2024-12-31"`` includes the whole local day because the
day ends where the next one begins. It knows nothing of records, filters or storage, and reads no
clock but through ``Clock``.

Local times that a zone skips or repeats follow RFC 5545, section 3.3.5: in a gap the offset from
before it applies, in a fold the first of the two. A day begins at the first instant whose local
date is that day, so days follow one another without a hole or an overlap whatever the clocks did.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Final, NoReturn, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from memdb.errors import InvalidArgument
from memdb.types import Precision, from_micros, to_micros

__all__ = [
    "MAX_MICROS",
    "MIN_MICROS",
    "Clock",
    "SystemClock",
    "TimeSpan",
    "load_zone",
    "local_zone",
    "parse_duration",
    "parse_time",
    "zone_name",
]

MIN_MICROS: Final = to_micros(datetime.min.replace(tzinfo=UTC))
MAX_MICROS: Final = to_micros(datetime.max.replace(tzinfo=UTC))
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)

_TIME = re.compile(
    r"(?P<year>\d{4})"
    r"(?:-(?P<month>\d\d)"
    r"(?:-(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)"
    r"(?P<second>:(?P<seconds>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"\ ?(?P<offset>[Zz]|[+-]\d\d(?::?\d\d)?)?)?)?)?",
    re.ASCII,
)
# The basic format of calendars needs its time of day: eight digits alone could be any number.
_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(Z|[+-]\d{4})?", re.ASCII)
_EXTENDED = r"\1-\2-\3T\4:\5:\6\7"
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_DURATION = re.compile(r"\s*(?:\d+(?:\.\d+)?\s*[smhdw]\s*)+", re.ASCII)
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Clock(Protocol):
    """Where the present comes from; tests and replays bring their own."""

    def now(self) -> datetime:
        """The present as an aware ``datetime``."""
        ...


class SystemClock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """What a time names: ``start_us <= t < end_us`` in microseconds UTC.

    An instant is one microsecond wide. ``zone`` is the zone it was written in: an IANA name,
    ``UTC`` or an offset such as ``+02:00``. Empty only for a day its zone skipped altogether.
    """

    start_us: int
    end_us: int
    zone: str
    precision: Precision

    @property
    def start(self) -> datetime:
        return from_micros(self.start_us)

    @property
    def end(self) -> datetime | None:
        """The exclusive end, or None when it lies after the last representable instant."""
        return None if self.end_us > MAX_MICROS else from_micros(self.end_us)


def parse_time(value: object, *, zone: tzinfo, field: str) -> TimeSpan:
    """The span that ``value`` names.

    Accepts an ISO 8601 string (``2024``, ``2024-05``, ``2024-05-17``, ``2024-05-17T09:30``,
    with seconds and decimals, of which six count; ``Z`` or an offset; ``20240517T093000Z``), a
    ``date`` or a ``datetime``. What names no offset is in ``zone``. Raises ``InvalidArgument``
    naming ``field``: for anything else (numbers above all: seconds and milliseconds cannot be
    told apart), for dates that do not exist and for instants outside the years 1 to 9999 UTC.
    """
    try:
        if isinstance(value, datetime):
            return _instant(value, zone, field)
        if isinstance(value, date):
            return _whole(value, _days_later(value, 1), zone, "day", field)
        if isinstance(value, str):
            return _parse_text(value, zone, field)
    except (OverflowError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{field}: no such time ({error})", field=field) from error
    raise InvalidArgument(
        f"{field} must be an ISO 8601 string, a date or a datetime, not {type(value).__name__}",
        field=field,
        hint="write times as '2024-05-17T09:30:00+02:00'; bare numbers are ambiguous",
    )


def _parse_text(text: str, zone: tzinfo, field: str) -> TimeSpan:
    # The form programs write, down to the second and with its offset: no need for the grammar.
    if len(text) >= 20 and text[10] == "T" and text[16] == ":" and text[4] == text[7] == "-":
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:  # not quite that form: the grammar decides, and says what is wrong
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return _instant(moment, zone, field)
    if len(text) > 64:
        _refuse_text(field)
    basic = _BASIC.fullmatch(text.strip())
    match = _TIME.fullmatch(basic.expand(_EXTENDED) if basic else text.strip())
    if match is None:
        _refuse_text(field)
    year = int(match["year"])
    if match["month"] is None:
        following = date(year + 1, 1, 1) if year < 9999 else None
        return _whole(date(year, 1, 1), following, zone, "year", field)
    month = int(match["month"])
    if match["day"] is None:
        first = date(year, month, 1)
        following = _days_later(first, 32)
        following = following.replace(day=1) if following else None
        return _whole(first, following, zone, "month", field)
    day = date(year, month, int(match["day"]))
    if match["hour"] is None:
        return _whole(day, _days_later(day, 1), zone, "day", field)
    moment = datetime(
        day.year,
        day.month,
        day.day,
        int(match["hour"]),
        int(match["minute"]),
        int(match["seconds"] or 0),
        int((match["fraction"] or "").ljust(6, "0")[:6]),
    )
    own = _offset(match["offset"]) if match["offset"] else zone
    width = 1 if match["second"] else 60_000_000
    return _span(moment.replace(tzinfo=own), width, "exact" if match["second"] else "minute", field)


def _refuse_text(field: str) -> NoReturn:
    raise InvalidArgument(
        f"{field} is not an ISO 8601 time",
        field=field,
        hint="write times as '2024', '2024-05', '2024-05-17' or '2024-05-17T09:30:00+02:00'",
    )


def _offset(text: str) -> tzinfo:
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    if int(digits[2:]) > 59:
        raise ValueError("an offset has at most 59 minutes")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-size if text[0] == "-" else size) if size else UTC


def _instant(moment: datetime, zone: tzinfo, field: str) -> TimeSpan:
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=zone)
    return _span(moment, 1, "exact", field)


def _span(moment: datetime, width_us: int, precision: Precision, field: str) -> TimeSpan:
    start = _in_range(_micros(moment), field)
    end = min(start + width_us, MAX_MICROS + 1)
    return TimeSpan(start, end, zone_name(moment.tzinfo or UTC), precision)


def _whole(
    first: date, following: date | None, zone: tzinfo, precision: Precision, field: str
) -> TimeSpan:
    start = _in_range(_day_start(first, zone), field)
    end = MAX_MICROS + 1 if following is None else _day_start(following, zone)
    return TimeSpan(start, min(end, MAX_MICROS + 1), zone_name(zone), precision)


def _in_range(micros: int, field: str) -> int:
    if not MIN_MICROS <= micros <= MAX_MICROS:
        raise InvalidArgument(f"{field} is outside the years 1 to 9999 UTC", field=field)
    return micros


def _micros(moment: datetime) -> int:
    """Microseconds UTC by subtraction, so that an instant past year 9999 is a number, no error."""
    local = (moment.replace(tzinfo=None) - _LOCAL_EPOCH) // _MICROSECOND
    return local - (moment.utcoffset() or timedelta()) // _MICROSECOND


def _days_later(day: date, days: int) -> date | None:
    """None past year 9999, where a span is open-ended."""
    try:
        return day + timedelta(days)
    except OverflowError:
        return None


def _day_start(day: date, zone: tzinfo) -> int:
    """Microseconds UTC of the first instant whose date in ``zone`` is ``day`` or later."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    early, late = _micros(midnight.replace(fold=1)), _micros(midnight)
    if early >= late:  # no gap at midnight: it exists, or exists twice and the first counts
        return late
    # Midnight was skipped. The transition lies between the two readings of it; clocks change at
    # whole seconds, so bisect over them.
    low, high = early // 1_000_000, late // 1_000_000
    while low < high:
        middle = (low + high) // 2
        if from_micros(middle * 1_000_000).astimezone(zone).date() >= day:
            high = middle
        else:
            low = middle + 1
    return low * 1_000_000


def zone_name(zone: tzinfo) -> str:
    """The name a zone is stored under: its IANA key, ``UTC``, or its offset as ``+HH:MM``."""
    key = getattr(zone, "key", None)
    if isinstance(key, str):
        return key
    offset = zone.utcoffset(None)
    if offset is None:
        return str(zone)
    if not offset:
        return "UTC"
    minutes, seconds = divmod(int(abs(offset).total_seconds()), 60)
    sign = "-" if offset < timedelta() else "+"
    tail = f":{seconds:02}" if seconds else ""
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}{tail}"


def load_zone(name: str, *, field: str = "time_zone") -> tzinfo:
    """The zone of that name: an IANA key, ``UTC`` or ``+HH:MM``. Raises ``InvalidArgument``."""
    if re.fullmatch(r"[+-]\d\d:\d\d", name, re.ASCII):
        try:
            return _offset(name)
        except ValueError as error:
            raise InvalidArgument(f"{field}: no such offset", field=field) from error
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgument(
            f"{field}: no such time zone",
            field=field,
            hint="name it as the IANA database does, such as 'Europe/Vienna'",
        ) from error


def local_zone() -> tzinfo:
    """The machine's zone: ``TZ``, else what /etc/localtime points at, else UTC."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        _, found, name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
        name = name.removeprefix("posix/") if found else "UTC"
    try:
        return load_zone(name)
    except InvalidArgument:  # a POSIX rule such as "CET-1CEST" names no zone one could store
        return UTC


def parse_duration(value: object, *, field: str) -> timedelta:
    """A positive length of time: ``"90d"``, ``"1h30m"``, ``"2w"``, or a ``timedelta``.

    Units: s, m (minutes), h, d (24 hours), w. Months and years have no fixed length and are
    refused. Raises ``InvalidArgument`` naming ``field``.
    """
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, str) and len(value) <= 64 and _DURATION.fullmatch(value):
        try:
            length = timedelta(
                seconds=sum(
                    float(number) * _UNIT_SECONDS[unit]
                    for number, unit in _DURATION_PART.findall(value)
                )
            )
        except OverflowError as error:
            raise InvalidArgument(f"{field} is too long a time", field=field) from error
    else:
        raise InvalidArgument(
            f"{field} must be a duration",
            field=field,
            hint="write durations as '90d', '12h' or '1h30m' (s, m, h, d, w), or pass a timedelta",
        )
    if length <= timedelta():
        raise InvalidArgument(f"{field} must be longer than nothing", field=field)
    return length
