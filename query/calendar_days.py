"""Calendar arithmetic over local days: units, what recurs, and what lies within what.

Days are half-open: ``first <= day < after``. Weeks begin on Monday, a weekend is Saturday and
Sunday, seasons are three whole months. A *recurring* is a month, weekday or season without a year:
a function from days to its first occurrence that overlaps them. It knows no zones, words or clocks.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

from memdb.types import Precision


class Days(NamedTuple):
    """Local days, with how precisely they were named; ``recurring`` finds their like elsewhere."""

    first: date
    after: date
    precision: Precision
    recurring: Recurring | None = None


Recurring = Callable[[date, date], Days | None]


def one_day(year: int, month: int, day: int) -> Days | None:
    """None for a day that does not exist."""
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    return unit_of(date(year, month, day), "day")


def month_days(year: int, month: int) -> Days | None:
    return unit_of(date(year, month, 1), "month") if 1 <= month <= 12 else None


def unit_of(day: date, unit: str) -> Days:
    """The day, weekend, week, month or year that ``day`` is in."""
    if unit == "day":
        return Days(day, day + timedelta(1), "day")
    if unit == "year":
        return Days(date(day.year, 1, 1), date(day.year + 1, 1, 1), "year")
    if unit == "month":
        first = day.replace(day=1)
        return Days(first, moved(first, "month", 1), "month")
    monday = day - timedelta(day.weekday())
    first = monday + timedelta(5) if unit == "weekend" else monday
    return Days(first, monday + timedelta(7), "day")


def moved(day: date, unit: str, count: int) -> date:
    """``day`` some units later (earlier, where ``count`` is negative); the last of a short month.

    Stays within the years 2 to 9998, so that a unit around it exists.
    """
    if unit in ("month", "year"):
        months = day.year * 12 + day.month - 1 + count * (12 if unit == "year" else 1)
        year, month = divmod(min(max(months, 24), 9998 * 12 + 11), 12)
        return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
    length = {"day": 1, "week": 7, "weekend": 7}[unit] * count
    lowest, highest = date(2, 1, 1).toordinal(), date(9998, 12, 31).toordinal()
    return date.fromordinal(min(max(day.toordinal() + length, lowest), highest))


def narrowed(outer: Days, inner: Days) -> Days | None:
    """The occurrence of ``inner`` in ``outer``: Friday of last week, March of last year."""
    if inner.recurring is None:
        return inner if outer.first <= inner.first and inner.after <= outer.after else None
    found = inner.recurring(outer.first, outer.after)
    if found is None or found.first < outer.first or found.after > outer.after:
        return None
    return found


# --- what recurs ----------------------------------------------------------------------------------


def weekday(number: int) -> Recurring:
    """0 is Monday."""

    def within(low: date, high: date) -> Days | None:
        day = low + timedelta((number - low.weekday()) % 7)
        return unit_of(day, "day") if day < high else None

    return within


def month(number: int, day: int | None = None) -> Recurring:
    """A month of the year, or a day of it."""

    def within(low: date, high: date) -> Days | None:
        for year in range(low.year, high.year + 1):
            found = month_days(year, number) if day is None else one_day(year, number, day)
            if found is not None and found.after > low and found.first < high:
                return found
        return None

    return within


def season(begins: int) -> Recurring:
    """The three months from ``begins`` on; a winter belongs to the year it begins in."""

    def within(low: date, high: date) -> Days | None:
        for year in range(low.year - 1, high.year + 1):
            found = season_days(year, begins)
            if found.after > low and found.first < high:
                return found
        return None

    return within


def season_days(year: int, begins: int) -> Days:
    first = date(year, begins, 1)
    return Days(first, moved(first, "month", 3), "month")


def latest(recurring: Recurring, today: date, *, begun: bool) -> Days | None:
    """Its last occurrence that is over, or that has ``begun``, on ``today``."""
    limit = today + timedelta(1) if begun else today
    found: Days | None = None
    low = moved(today, "year", -9)
    while low < limit:
        occurrence = recurring(low, limit)
        if occurrence is None or (not begun and occurrence.after > today):
            break
        found = occurrence
        low = max(occurrence.after, low + timedelta(1))
    return found


def following(recurring: Recurring, today: date) -> Days | None:
    """Its first occurrence that begins after ``today``."""
    low = today + timedelta(1)
    found = recurring(low, moved(low, "year", 9))
    if found is not None and found.first <= today:  # it is going on
        found = recurring(found.after, moved(found.after, "year", 9))
    return found
