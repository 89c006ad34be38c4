"""Questions about time with computed truth: worlds of records, and what each question's answer is.

A world is one person's records at one moment in one zone. Each question has topics of its own (a
dinner with somebody, a fact of somebody), of which exactly one record is right by the calendar:
the one inside the time that is named, the last before now, the value that was true. Truth is
computed here from local dates with the standard library, and with nothing of memdb.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

ZONES = ("Europe/Vienna", "America/New_York", "Asia/Tokyo", "Pacific/Auckland")
PEOPLE = (
    "Ana Ben Carla David Elif Farid Greta Hugo Ines Jonas Katya Luca Mira Nils Olga Pedro Quentin"
    " Rosa Samir Tilda Ulrich Vera Wanda Xaver Yusuf Zoe"
).split()
CITIES = "Rome Lisbon Oslo Prague Dublin Athens Zagreb Helsinki Porto Seville Ghent Kyoto".split()
# What a record says, and how one asks for it.
ACTIVITIES = (
    ("Dinner with {who}: {what}", "what did we eat at dinner with {who}", "dinner with {who}"),
    ("Watched a film with {who}: {what}", "which film did I watch with {who}", "film with {who}"),
    ("Phone call with {who} about {what}", "what was the phone call with {who} about",
     "phone call with {who}"),
    ("Played chess against {who}, {what}", "how did chess against {who} go", "chess with {who}"),
    ("Lent {who} a book, {what}", "which book did I lend {who}", "book lent to {who}"),
    ("Hiked with {who} to {what}", "where did I hike with {who}", "hike with {who}"),
)  # fmt: skip
DETAILS = (
    "lentils lasagne dumplings paella ramen goulash pancakes couscous risotto chowder moussaka"
    " quiche falafel stew bibimbap ratatouille gnocchi tacos laksa schnitzel"
).split()
FACTS = (
    ("address", "where does {who} live", "{n} Elm St;{n} Oak Lane;{n} Mill Road"),
    ("employer", "who does {who} work for", "Acme {n};Globex {n};Initech {n}"),
    ("phone_number", "what is the phone number of {who}", "555-01{n};555-02{n};555-03{n}"),
    ("car", "what car does {who} drive", "Fiat {n};Skoda {n};Mazda {n}"),
    ("favourite_colour", "what is {who}'s favorite color", "teal {n};ochre {n};mauve {n}"),
)
MONTHS = list(calendar.month_name)


@dataclass
class Asked:
    """One question, how it is asked, and the external id of the record that is right."""

    kind: str
    query: str
    right: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """Records to be written, in order, and questions about them, at one moment in one zone."""

    zone: str
    now: datetime
    records: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


def worlds(count: int, seed: int = 7) -> list[World]:
    """``count`` worlds of some sixty questions each; the same for the same seed."""
    return [_Maker(ZONES[n % len(ZONES)], random.Random(seed * 1000 + n)).make() for n in
            range(count)]  # fmt: skip


class _Maker:
    """Makes one world; local dates in, records with aware times out."""

    def __init__(self, zone: str, rng: random.Random) -> None:
        self._rng = rng
        self._zone = ZoneInfo(zone)
        day = date(2024, 2, 1) + timedelta(rng.randrange(500))
        local = datetime(day.year, day.month, day.day, rng.randrange(7, 22), 15, tzinfo=self._zone)
        self._world = World(zone, local.astimezone(UTC))
        self._today = day
        self._topics = [(shape, who) for shape in ACTIVITIES for who in PEOPLE]
        rng.shuffle(self._topics)
        self._number = 0

    def make(self) -> World:
        for expression, first, after in self._expressions():
            self._relative(expression, first, after)
        for _ in range(4):
            self._order("when did I last have", "last")
            self._order("what was the first", "first")
            self._order("when is the next", "next")
        for city in self._rng.sample(CITIES, 6):
            self._anchor(city, self._rng.choice(("before", "after")))
        for shape in FACTS:
            for who in self._rng.sample(PEOPLE, 3):
                self._fact(who, shape)
        for _ in range(3):
            self._midnight()
        self._chatter()
        self._rng.shuffle(self._world.records)  # equal scores go by the order of writing
        return self._world

    # --- records ------------------------------------------------------------------------

    def _record(self, text: str, moment: datetime, **fields: Any) -> str:
        self._number += 1
        name = f"r{self._number}"
        self._world.records.append(
            {"text": text, "external_id": name, "event_time": moment, "kind": "event", **fields}
        )
        return name

    def _at(self, day: date, hour: int | None = None, minute: int = 30) -> datetime:
        hour = self._rng.randrange(8, 22) if hour is None else hour
        local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self._zone)
        return local.astimezone(UTC)

    def _topic(self) -> tuple[tuple[str, str, str], str, list[str]]:
        shape, who = self._topics.pop()
        return shape, who, self._rng.sample(DETAILS, 8)

    def _some_day(self, outside: Callable[[date], bool]) -> date:
        """A day of the last three years for which ``outside`` holds."""
        while True:
            day = self._today - timedelta(self._rng.randrange(1, 1100))
            if outside(day):
                return day

    # --- questions ----------------------------------------------------------------------

    def _expressions(self) -> list[tuple[str, date, date]]:
        """(words, first day, day after the last) of times relative to today, and of dates."""
        today, rng = self._today, self._rng
        monday = today - timedelta(today.weekday())
        first = today.replace(day=1)
        before = (first - timedelta(1)).replace(day=1)
        day = today - timedelta(rng.randrange(40, 700))
        found = [
            ("yesterday", today - timedelta(1), today),
            ("the day before yesterday", today - timedelta(2), today - timedelta(1)),
            ("last week", monday - timedelta(7), monday),
            ("two weeks ago", monday - timedelta(14), monday - timedelta(7)),
            ("five weeks ago", monday - timedelta(35), monday - timedelta(28)),
            ("last weekend", monday - timedelta(2), monday),
            ("ten days ago", today - timedelta(10), today - timedelta(9)),
            ("last month", before, first),
            ("three months ago", *_month(first, -3)),
            ("last year", date(today.year - 1, 1, 1), date(today.year, 1, 1)),
            ("two years ago", date(today.year - 2, 1, 1), date(today.year - 1, 1, 1)),
            (f"in {today.year - 1}", date(today.year - 1, 1, 1), date(today.year, 1, 1)),
            (f"on {day.day} {MONTHS[day.month]} {day.year}", day, day + timedelta(1)),
            (f"on {day.isoformat()}", day, day + timedelta(1)),
        ]
        for back in (4, 9):
            start, after = _month(first, -back)
            found.append((f"in {MONTHS[start.month]} {start.year}", start, after))
        start, after = _month(first, -5)
        found.append((f"last {MONTHS[start.month]}", start, after))
        start, after = _month(first, -7)
        found.append((f"in {MONTHS[start.month]}", start, after))
        number = rng.randrange(7)
        friday = today - timedelta((today.weekday() - number - 1) % 7 + 1)
        found.append((f"last {calendar.day_name[number]}", friday, friday + timedelta(1)))
        south = self._world.zone.startswith("Pacific")
        begins = date(today.year - 2 if south else today.year - 1, 12 if south else 6, 1)
        found.append((f"in the summer of {begins.year}", begins, _month(begins, 3)[0]))
        low, high = _month(first, -8)[0], _month(first, -6)[1]
        named = f"between {MONTHS[low.month]} {low.year} and {MONTHS[_month(first, -6)[0].month]}"
        found.append((f"{named} {_month(first, -6)[0].year}", low, high))
        return found

    def _relative(self, words: str, first: date, after: date) -> None:
        (text, question, _), who, details = self._topic()
        width = (after - first).days
        inside = first + timedelta(self._rng.randrange(width))
        right = self._record(text.format(who=who, what=details[0]), self._at(inside))
        for detail in details[1:5]:
            day = self._some_day(lambda day: not first <= day < after)
            self._record(text.format(who=who, what=detail), self._at(day))
        query = f"{question.format(who=who)} {words}?"
        self._world.asked.append(Asked("relative", query, right))

    def _order(self, words: str, order: str) -> None:
        (text, _, name), who, details = self._topic()
        days = sorted({self._today - timedelta(n) for n in self._rng.sample(range(3, 900), 4)})
        ahead = sorted({self._today + timedelta(n) for n in self._rng.sample(range(3, 90), 2)})
        ids = [
            self._record(text.format(who=who, what=detail), self._at(day))
            for day, detail in zip([*days, *ahead], details, strict=False)
        ]
        right = {"first": ids[0], "last": ids[len(days) - 1], "next": ids[len(days)]}[order]
        self._world.asked.append(Asked("order", f"{words} {name.format(who=who)}?", right))

    def _anchor(self, city: str, relation: str) -> None:
        (text, question, _), who, details = self._topic()
        trip = self._today - timedelta(self._rng.randrange(200, 600))
        self._record(f"Trip to {city}", self._at(trip, 9))
        steps = sorted(self._rng.sample(range(5, 150), 2))
        ids = {
            days: self._record(text.format(who=who, what=detail), self._at(trip + timedelta(days)))
            for days, detail in zip([-steps[1], -steps[0], *steps], details, strict=False)
        }
        right = ids[-steps[0] if relation == "before" else steps[0]]
        query = f"{question.format(who=who)} {relation} the trip to {city}?"
        self._world.asked.append(Asked("event", query, right))

    def _fact(self, who: str, shape: tuple[str, str, str]) -> None:
        key, question, values = shape
        start = self._today - timedelta(self._rng.randrange(900, 1500))
        since = [start, start + timedelta(self._rng.randrange(200, 400))]
        since.append(since[1] + timedelta(self._rng.randrange(200, 400)))
        names = []
        for day, value in zip(since, values.split(";"), strict=True):
            self._number += 1
            names.append(f"r{self._number}")
            self._world.records.append(
                {
                    "data": value.format(n=self._rng.randrange(10, 99)),
                    "key": key,
                    "subject": who,
                    "valid_from": self._at(day, 0, 0),
                    "external_id": names[-1],
                }
            )
        query = question.format(who=who) + "?"
        self._world.asked.append(Asked("superseded", query, names[-1]))
        place = self._rng.randrange(2)
        then = since[place] + timedelta(
            self._rng.randrange(1, (since[place + 1] - since[place]).days)
        )
        self._world.asked.append(Asked("as_of", query, names[place], {"as_of": then.isoformat()}))

    def _midnight(self) -> None:
        """Minutes decide: what was on a local day, seen from the zone."""
        (text, question, _), who, details = self._topic()
        yesterday = self._today - timedelta(1)
        late = self._rng.random() < 0.5
        moments = [
            self._at(yesterday, 23, 50) if late else self._at(yesterday, 0, 10),
            self._at(self._today, 0, 10),
            self._at(yesterday - timedelta(1), 23, 50),
        ]
        ids = [
            self._record(text.format(who=who, what=detail), moment)
            for moment, detail in zip(moments, details, strict=False)
        ]
        query = f"{question.format(who=who)} yesterday?"
        self._world.asked.append(Asked("zone", query, ids[0]))

    def _chatter(self) -> None:
        """Messages that use the questions' words and answer none of them."""
        for number in range(200):
            one, other = self._rng.sample(PEOPLE, 2)
            said = self._rng.choice(
                (
                    f"{one} asked me yesterday whether {other} still lives at that address",
                    f"we should have dinner again, {one} and {other}, maybe next week",
                    f"{one} said last year that {other} would change the phone number",
                    f"talked with {one} about a trip that {other} dreams of",
                    f"{one} wonders who {other} works for now, and what car that is",
                )
            )
            day = self._some_day(lambda _: True)
            self._record(said, self._at(day), kind="message", stream="chat", position=number)


def _month(first: date, shift: int) -> tuple[date, date]:
    """The month some months from the one that ``first`` begins: its first day, and the day after
    its last."""
    year, month = divmod(first.year * 12 + first.month - 1 + shift, 12)
    start = date(year, month + 1, 1)
    return start, start + timedelta(calendar.monthrange(year, month + 1)[1])
