"""Times that a question names, read without a model: "last March", "vor zwei Wochen", "since May".

    read("what did Ana eat last March?", now=..., zone=...)  ->  start, end, precision, words

A grammar over classes of words (``time_words``), the same for all languages: what stands together
as LAST MONTH, NUMBER UNIT AGO or BETWEEN date AND date is a time whatever the language. Times are
calendar units of the zone, weeks begin on Monday, and a month or weekday without a year is the last
one that has begun, or the next one where the question speaks of what is to come. What could be a
name (May, March, Sun) is a time only in company: "in May", "May 2023".

A library was tried first: dateparser 1.5 takes 0.4 s to import and 5 s for its first question, some
100 ms for each without a given language, and reads "do", "can" and "the sun" as dates. This grammar
takes some 50 us a question.

An event that a question names ("before the trip to Rome") is returned as words: who has the
memories looks them up. This file knows no memories, and reads no clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final, Literal

from memdb.query import calendar_days as days_of
from memdb.query.calendar_days import Days, Recurring
from memdb.query.date_terms import MONTHS, needs_company
from memdb.query.han_times import han_days
from memdb.query.time_tokens import ANCHORING, ORDERING, may_begin, tokens_of
from memdb.query.time_words import (
    FIRST,
    FUTURE,
    LATEST,
    NAMES_AFTER_ORDER,
    NOW,
    ROLES,
    SHORT_WEEKDAYS,
    WORDS,
)
from memdb.times import parse_time, zone_name
from memdb.types import Precision, to_micros

Order = Literal["first", "last", "next"]
Relation = Literal["before", "after", "during"]

_ISO: Final = re.compile(r"((?:1[89]|20)\d\d)-(\d\d)(?:-(\d\d))?\Z")
_DOTTED: Final = re.compile(r"(\d{1,2})\.(\d{1,2})\.((?:1[89]|20)\d\d)\Z")
_YEAR: Final = re.compile(r"(?:1[89]|20)\d\d\Z")
_ORDINAL: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th|er|º|ª|\.)?\Z")
_ANCHOR_WORDS: Final = 8
_ARTICLES: Final = frozenset(
    "the a an my our his her their your its der die das den dem meine meiner mein la le el los il"
    " mon ma notre mi nuestro".split()
)
_EMPTY_ANCHORS: Final = frozenset(
    "that then this it and i we he she they you now all was is were long noon lunch"
    " breakfast dinner work school".split()
)
_LOOK_AFTER: Final = frozenset("look looks looked looking take takes took named".split())
_SOUTHERN: Final = (
    "Australia/", "Pacific/Auckland", "Antarctica/", "America/Argentina/", "America/Sao_Paulo",
    "America/Santiago", "America/Montevideo", "America/Asuncion", "America/Lima",
    "Africa/Johannesburg", "Africa/Windhoek", "Africa/Harare",
)  # fmt: skip
_SEASON_BEGINS: Final = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}


@dataclass(frozen=True, slots=True)
class TimeReading:
    """What a question says of time: ``start_us <= t < end_us``, None where open.

    ``order``: it asks for the first, the last or the coming one of what it names. ``event``: it
    names an event instead of a time, and stands in ``relation`` to it. ``words`` are those read,
    and ``rest`` what the question says beside them.
    """

    words: str
    start_us: int | None = None
    end_us: int | None = None
    precision: Precision | None = None
    order: Order | None = None
    relation: Relation | None = None
    event: str | None = None
    rest: str = ""

    @property
    def bounded(self) -> bool:
        """Whether it names an interval."""
        return self.start_us is not None or self.end_us is not None


def read(question: str, *, now: datetime, zone: tzinfo) -> TimeReading | None:
    """What ``question`` says of time at the aware ``now``, in ``zone``; None if nothing."""
    return _Reader(question, now, zone).read()


class _Reader:
    """One question, read once from left to right."""

    def __init__(self, question: str, now: datetime, zone: tzinfo) -> None:
        self._question = question
        self._zone = zone
        self._now = now
        self._today = now.astimezone(zone).date()
        self._tokens = tokens_of(question)
        self._ahead = any(token.word in FUTURE for token in self._tokens)
        self._used: set[int] = set()
        self._after = 0

    # --- the question -------------------------------------------------------------------

    def read(self) -> TimeReading | None:
        han = han_days(self._question, self._today)
        found = self._interval() if han is None else self._spanned(han)
        order = self._order()
        if found is not None:
            return TimeReading(self._words(), *found, order=order, rest=self._rest())
        anchor = self._anchor()
        if anchor is not None:
            relation, event = anchor
            return TimeReading(
                self._words(), order=order, relation=relation, event=event, rest=self._rest()
            )
        if order is None:
            return None
        return TimeReading(self._words(), order=order, rest=self._rest())

    def _words(self) -> str:
        places = sorted(self._used)
        return " ".join(self._question[self._tokens[p].start : self._tokens[p].end] for p in places)

    def _rest(self) -> str:
        kept = [token for place, token in enumerate(self._tokens) if place not in self._used]
        return " ".join(self._question[token.start : token.end] for token in kept)

    def _word(self, at: int) -> str:
        return self._tokens[at].word if 0 <= at < len(self._tokens) else ""

    def _is(self, at: int, role: str) -> bool:
        return self._word(at) in ROLES[role]

    def _class(self, at: int, wanted: str) -> object | None:
        """The value of a word if it is of that class."""
        kind, value = WORDS.get(self._word(at), ("", None))
        return value if kind == wanted else None

    # --- intervals ----------------------------------------------------------------------

    def _interval(self) -> tuple[int | None, int | None, Precision | None] | None:
        """The first interval named, narrowed by a second that lies in it."""
        found: list[tuple[str, Days]] = []
        at = 0
        while at < len(self._tokens):
            if not may_begin(self._tokens[at].word):
                at += 1
                continue
            named = self._between(at) or self._rolling(at) or self._related(at)
            if named is None:
                at += 1
                continue
            relation, days, after = named
            self._used.update(range(at, after))
            found.append((relation, days))
            at = after
        if not found:
            return None
        relation, days = found[0]
        if len(found) > 1 and relation == found[1][0] == "in":
            days = (
                days_of.narrowed(days, found[1][1]) or days_of.narrowed(found[1][1], days) or days
            )
        start, end = self._micros(days.first), self._micros(days.after)
        if relation == "since":
            return start, None if self._ahead else to_micros(self._now) + 1, days.precision
        if relation == "after":
            return end, None, days.precision
        if relation == "before":
            return None, start, days.precision
        if relation == "until":
            return None, end, days.precision
        return start, end, days.precision

    def _spanned(self, days: Days) -> tuple[int | None, int | None, Precision | None]:
        return self._micros(days.first), self._micros(days.after), days.precision

    def _micros(self, day: date) -> int:
        return parse_time(day, zone=self._zone, field="query").start_us

    def _between(self, at: int) -> tuple[str, Days, int] | None:
        """BETWEEN date AND date, FROM date TO date; what the first lacks the second says."""
        if self._is(at, "BETWEEN"):
            joins = "AND"
        elif self._is(at, "FROM"):
            joins = "TO"
        else:
            return None
        first = self._point(at + 1, introduced=True)
        if first is None or not self._is(first[1], joins):
            return None
        second = self._point(first[1] + 1, introduced=True)
        if second is None:
            return None
        low, high = first[0], second[0]
        if low.recurring is not None and (high.recurring is None or low.first >= high.after):
            low = low.recurring(days_of.moved(high.after, "year", -1), high.after) or low
        elif high.recurring is not None and high.after <= low.first:
            high = high.recurring(low.first, days_of.moved(low.first, "year", 1)) or high
        if low.first >= high.after:
            return None
        return "in", Days(low.first, high.after, high.precision), second[1]

    def _rolling(self, at: int) -> tuple[str, Days, int] | None:
        """LAST NUMBER UNITs ("the last three months", "the past few weeks"): up to today."""
        if self._class(at, "RELATIVE") != "last":
            return None
        number = self._number(at + 1)
        unit = None if number is None else self._class(at + 2, "UNIT")
        if number is None or not isinstance(unit, str) or unit in ("minute", "hour", "weekend"):
            return None
        first = days_of.moved(self._today, unit, -number)
        return "in", Days(first, self._today + timedelta(1), "day"), at + 3

    def _related(self, at: int) -> tuple[str, Days, int] | None:
        """[SINCE | UNTIL | BEFORE | AFTER | IN] date."""
        for relation, role in (
            ("since", "SINCE"), ("before", "BEFORE"), ("after", "AFTER"), ("until", "UNTIL"),
            ("in", "IN"), ("in", "DURING"),
        ):  # fmt: skip
            if self._is(at, role):
                ago = self._ago(at) if self._is(at, "AGO_BEFORE") else None
                if ago is not None:
                    return "in", *ago
                after = at + 1
                while self._is(after, "OF") and self._class(after, "NUMBER") is None:
                    after += 1
                point = self._point(after, introduced=True)
                if point is not None:
                    return relation, *point
        point = self._ago(at) or self._point(at, introduced=False)
        return None if point is None else ("in", *point)

    # --- points -------------------------------------------------------------------------

    def _point(self, at: int, *, introduced: bool) -> tuple[Days, int] | None:
        """A date, month, year, day or season that begins at a place, and the place after it."""
        return (
            self._written(at)
            or self._relative(at)
            or self._ago(at)
            or self._day_name(at, introduced)
            or self._month(at, introduced)
            or self._season(at, introduced)
            or self._year(at, introduced)
        )

    def _written(self, at: int) -> tuple[Days, int] | None:
        """2023-05-08, 2023-05, 8.5.2023; with slashes the order of day and month is not known."""
        found = _ISO.match(self._word(at))
        if found:
            year, month, day = int(found[1]), int(found[2]), found[3] and int(found[3])
        else:
            found = _DOTTED.match(self._word(at))
            if not found:
                return None
            year, month, day = int(found[3]), int(found[2]), int(found[1])
        days = days_of.month_days(year, month) if not day else days_of.one_day(year, month, day)
        return None if days is None else (days, at + 1)

    def _relative(self, at: int) -> tuple[Days, int] | None:
        """LAST MONTH | MONTH LAST, of units, weekdays, months and seasons."""
        for which, what, after in ((at, at + 1, at + 2), (at + 1, at, at + 2)):
            relative = self._class(which, "RELATIVE")
            if not isinstance(relative, str):
                continue
            if which > what and self._class(after, "UNIT") is not None:
                continue  # in March, last year
            days = self._unit(what, relative) or self._named(what, relative)
            if days is not None:
                return days, after
        if self._word(at) == "last" and self._word(at + 1) == "night":
            return days_of.unit_of(self._today - timedelta(1), "day"), at + 2
        if self._class(at, "RELATIVE") == "this" and self._word(at + 1) in (
            "morning", "afternoon", "evening",
        ):  # fmt: skip
            return days_of.unit_of(self._today, "day"), at + 2
        if [self._word(at + step) for step in range(3)] == ["day", "before", "yesterday"]:
            return days_of.unit_of(self._today - timedelta(2), "day"), at + 3
        return None

    def _unit(self, at: int, relative: str) -> Days | None:
        unit = self._class(at, "UNIT")
        if not isinstance(unit, str) or unit in ("minute", "hour"):
            return None
        shift = {"last": -1, "this": 0, "next": 1}[relative]
        return days_of.unit_of(days_of.moved(self._today, unit, shift), unit)

    def _named(self, at: int, relative: str) -> Days | None:
        """A weekday, month or season that is past, of this week or year, or to come."""
        recurring = self._recurring(at)
        if recurring is None:
            return None
        if relative == "last":
            return days_of.latest(recurring, self._today, begun=False)
        if relative == "next":
            return days_of.following(recurring, self._today)
        weekday = self._weekday(at) is not None
        unit = days_of.unit_of(self._today, "week" if weekday else "year")
        return recurring(unit.first, unit.after)

    def _recurring(self, at: int) -> Recurring | None:
        weekday, month = self._weekday(at), MONTHS.get(self._word(at))
        season = self._class(at, "SEASON")
        if weekday is not None:
            return days_of.weekday(weekday)
        if month is not None:
            return days_of.month(month)
        if isinstance(season, str):
            return days_of.season(self._season_begins(season))
        return None

    def _weekday(self, at: int) -> int | None:
        found = self._class(at, "WEEKDAY")
        return found if isinstance(found, int) else SHORT_WEEKDAYS.get(self._word(at))

    def _ago(self, at: int) -> tuple[Days, int] | None:
        """NUMBER UNIT AGO | AGO NUMBER UNIT ("vor zwei Wochen", "il y a deux semaines")."""
        place, before = at, False
        if self._is(at, "AGO_BEFORE"):
            place, before = at + 1, True
        elif [self._word(at + step) for step in range(3)] == ["il", "y", "a"]:
            place, before = at + 3, True
        number = self._number(place)
        if number is None:
            return None
        if self._word(place + 1) == "of":  # a couple of weeks ago
            place += 1
        unit = self._class(place + 1, "UNIT")
        if not isinstance(unit, str) or unit == "weekend":
            return None
        if not before and not self._is(place + 2, "AGO"):
            return None
        after = place + 2 if before else place + 3
        if unit in ("minute", "hour"):
            seconds = {"minute": 60, "hour": 3600}[unit] * number
            day = (self._now - timedelta(seconds=seconds)).astimezone(self._zone).date()
            return days_of.unit_of(day, "day"), after
        return days_of.unit_of(days_of.moved(self._today, unit, -number), unit), after

    def _number(self, at: int) -> int | None:
        word = self._word(at)
        if word.isdecimal() and word.isascii() and len(word) <= 4:
            return int(word)
        if word in ROLES["MANY"]:
            return 2 if word in ("couple", "paar") else 3
        if word == "a" and self._word(at + 1) == "couple":
            return None
        found = self._class(at, "NUMBER")
        return found if isinstance(found, int) else None

    def _day_name(self, at: int, introduced: bool) -> tuple[Days, int] | None:
        """Yesterday; Friday (short ones only when introduced)."""
        shift = self._class(at, "DAY")
        if isinstance(shift, int):
            if self._word(at) == "morgen" and not introduced and at:
                return None  # as a rule the morning
            day = self._today + timedelta(shift)
            return days_of.unit_of(day, "day"), at + 1
        weekday = self._weekday(at)
        if weekday is None or (self._word(at) in SHORT_WEEKDAYS and not introduced):
            return None
        recurring = days_of.weekday(weekday)
        days = self._occurrence(recurring)
        return None if days is None else (days._replace(recurring=recurring), at + 1)

    def _month(self, at: int, introduced: bool) -> tuple[Days, int] | None:
        """MONTH [day] [year] | day [of] MONTH [year]."""
        day, place = None, at
        found = _ORDINAL.match(self._word(at))
        if found and 1 <= int(found[1]) <= 31:
            place = at + 1
            while self._is(place, "OF"):
                place += 1
            day = int(found[1])
        month = MONTHS.get(self._word(place))
        if month is None:
            return None
        after = place + 1
        if day is None:
            found = _ORDINAL.match(self._word(after))
            if found and 1 <= int(found[1]) <= 31:
                day, after = int(found[1]), after + 1
        while self._is(after, "OF") and _YEAR.match(self._word(after + 1)):
            after += 1
        if _YEAR.match(self._word(after)):
            year = int(self._word(after))
            days = days_of.one_day(year, month, day) if day else days_of.month_days(year, month)
            return None if days is None else (days, after + 1)
        if day is None and needs_company(self._word(place)) and not introduced:
            return None
        recurring = days_of.month(month, day)
        days = self._occurrence(recurring)
        return None if days is None else (days._replace(recurring=recurring), after)

    def _season(self, at: int, introduced: bool) -> tuple[Days, int] | None:
        season = self._class(at, "SEASON")
        if not isinstance(season, str):
            return None
        begins = self._season_begins(season)
        after = at + 1
        while self._is(after, "OF") and _YEAR.match(self._word(after + 1)):
            after += 1
        if _YEAR.match(self._word(after)):
            year = int(self._word(after))
            return days_of.season_days(year, begins), after + 1
        if not introduced:
            return None
        recurring = days_of.season(begins)
        days = self._occurrence(recurring)
        return None if days is None else (days._replace(recurring=recurring), after)

    def _season_begins(self, season: str) -> int:
        month = _SEASON_BEGINS[season]
        southern = zone_name(self._zone).startswith(_SOUTHERN)
        return (month + 5) % 12 + 1 if southern else month

    def _year(self, at: int, introduced: bool) -> tuple[Days, int] | None:
        """A year is one when introduced, or alone at the end of what is asked."""
        last = at == len(self._tokens) - 1
        if not _YEAR.match(self._word(at)) or not (introduced or last):
            return None
        return days_of.unit_of(date(int(self._word(at)), 1, 1), "year"), at + 1

    def _occurrence(self, recurring: Recurring) -> Days | None:
        if self._ahead:
            return days_of.following(recurring, self._today - timedelta(1))
        return days_of.latest(recurring, self._today, begun=True)

    # --- orders and events --------------------------------------------------------------

    def _order(self) -> Order | None:
        """Whether the first, the last or the coming one of something is asked for."""
        for at, token in enumerate(self._tokens):
            if token.word not in ORDERING:
                continue
            if at in self._used or self._word(at + 1) in NAMES_AFTER_ORDER:
                continue
            if token.word in FIRST:
                self._used.add(at)
                return "first"
            if token.word in LATEST or token.word in NOW or token.word == "last":
                self._used.add(at)
                return "last"
            if token.word in ("next", "upcoming"):
                self._used.add(at)
                return "next"
            if token.word == "recent" and self._word(at - 1) == "most":
                self._used.update((at - 1, at))
                return "last"
        return None

    def _anchor(self) -> tuple[Relation, str] | None:
        """BEFORE | AFTER | SINCE | DURING, and the words of an event up to the next stop."""
        relations: tuple[tuple[Relation, str], ...] = (
            ("before", "BEFORE"), ("after", "AFTER"), ("after", "SINCE"), ("during", "DURING"),
        )  # fmt: skip
        for at, token in enumerate(self._tokens):
            if token.word not in ANCHORING:
                continue
            for relation, role in relations:
                if not self._is(at, role) or self._word(at - 1) in _LOOK_AFTER:
                    continue
                event = self._event(at + 1)
                if event is not None:
                    self._used.update(range(at, self._after))
                    return relation, event
        return None

    def _event(self, at: int) -> str | None:
        first = at
        while self._word(first) in _ARTICLES:
            first += 1
        if first >= len(self._tokens) or self._word(first) in _EMPTY_ANCHORS:
            return None
        after = first + 1
        while after < min(len(self._tokens), first + _ANCHOR_WORDS):
            gap = self._question[self._tokens[after - 1].end : self._tokens[after].start]
            if gap.strip():  # punctuation ends it
                break
            after += 1
        self._after = after
        return self._question[self._tokens[first].start : self._tokens[after - 1].end]
