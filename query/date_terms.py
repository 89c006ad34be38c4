"""Dates as terms: so that "8 May 2023", "2023-05-08" and "im Mai 2023" meet.

A date gives one term for each thing a question may name of it::

    8 May 2023   ->  2023  @05  @2023-05  @05-08  @2023-05-08
    May 2023     ->  2023  @05  @2023-05
    8 May        ->        @05            @05-08
    May          ->        @05       (only where "May" is a month: "in May", "May 2023")

The year is the plain number. ``@`` occurs in no other term. A date written with slashes whose
order cannot be known (5/8/2023) gives the terms of both readings. This file knows tokens, not
stems or stop words.
"""

# ruff: noqa: RUF001 - letters of other scripts are what this file is about

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = """
january jan januar jänner janvier enero gennaio janeiro januari января январь январе
february feb februar février febrero febbraio fevereiro februari февраля февраль феврале
march mar märz mars marzo março maart марта март марте
april apr avril abril aprile апреля апрель апреле
may mai mayo maggio maio mei мая май мае
june jun juni juin junio giugno junho июня июнь июне
july jul juli juillet julio luglio julho июля июль июле
august aug août agosto augustus августа август августе
september sep sept septembre septiembre settembre setembro сентября сентябрь сентябре
october oct oktober okt octobre octubre ottobre outubro октября октябрь октябре
november nov novembre noviembre novembro ноября ноябрь ноябре
december dec dezember dez décembre diciembre dicembre dezembro декабря декабрь декабре
"""
MONTHS: Final = {
    name: month
    for month, line in enumerate(_NAMES.strip().splitlines(), start=1)
    for name in line.split()
}
MONTH_NAMES: Final = frozenset(MONTHS)
# Names that mean something else too: months only beside a day, a year or a preposition of time.
_AMBIGUOUS: Final = frozenset(
    [
        "jan",
        "mar",
        "march",
        "mars",
        "may",
        "mai",
        "mei",
        "май",
        "мая",
        "jun",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "dez",
        "apr",
        "aug",
        "marzo",
        "august",
        "augustus",
        "april",
        "june",
        "jul",
    ]
)
_BEFORE: Final = frozenset(
    [
        "in",
        "of",
        "during",
        "since",
        "until",
        "till",
        "by",
        "last",
        "next",
        "this",
        "early",
        "late",
        "mid",
        "every",
        "im",
        "seit",
        "bis",
        "en",
        "de",
        "du",
        "di",
        "em",
        "от",
        "до",
        "с",
        "в",
        "в",
        "and",
        "to",
        "through",
        "from",
    ]
)
_BETWEEN: Final = frozenset(["of", "de", "di", "den", "der", "le", "the"])
_ORDINAL: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th|er|º|ª)?\Z")
_YEAR: Final = re.compile(r"(?:1[89]|20)\d\d\Z")
_YEAR_FIRST: Final = re.compile(r"((?:1[89]|20)\d\d)[-/.](\d{1,2})(?:[-/.](\d{1,2}))?(?:t\d.*)?\Z")
_YEAR_LAST: Final = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2((?:1[89]|20)\d\d)\Z")
_HAN: Final = re.compile(
    r"(?:(\d{4})\s?[年년]\s?)?(?:(\d{1,2})\s?[月월](?!間|间))(?:\s?(\d{1,2})\s?[日号號일])?"
)
_HAN_DIGITS: Final = str.maketrans("〇零一二三四五六七八九", "00123456789")
_HAN_WRITTEN: Final = re.compile(r"[〇零一二三四五六七八九]{4}(?=年)")
_HAN_SMALL: Final = re.compile(
    r"(?:十[一二]?|二?十[一二三四五六七八九]?|三十一?|[一二三四五六七八九])(?=[月日号號])"
)


def _valid(month: int, day: int | None) -> bool:
    return 1 <= month <= 12 and (day is None or 1 <= day <= 31)


def terms_of(year: str | None, month: int, day: int | None) -> list[str]:
    """The terms of one date."""
    terms = [f"@{month:02}"]
    if year:
        terms += [year, f"@{year}-{month:02}"]
    if day:
        terms.append(f"@{month:02}-{day:02}")
        if year:
            terms.append(f"@{year}-{month:02}-{day:02}")
    return terms


def of_number(token: str) -> list[str] | None:
    """The terms of a token such as 2023-05-08, 2023/05, 8.5.2023; None if it is no date."""
    found = _YEAR_FIRST.match(token)
    if found:
        year, month, day = found[1], int(found[2]), int(found[3]) if found[3] else None
        return terms_of(year, month, day) if _valid(month, day) else None
    found = _YEAR_LAST.match(token)
    if not found:
        return None
    first, second, year = int(found[1]), int(found[3]), found[4]
    readings = [(second, first)] if found[2] == "." else [(second, first), (first, second)]
    terms: dict[str, None] = {}
    for month, day in readings:
        if _valid(month, day):
            terms.update(dict.fromkeys(terms_of(year, month, day)))
    return list(terms) or None


def needs_company(name: str) -> bool:
    """Whether the name of a month means something else too, where nothing says it is one."""
    return name in _AMBIGUOUS


def around_months(tokens: list[str]) -> tuple[list[str], list[str]]:
    """(tokens that are no part of a date, the terms of the dates found around month names)."""
    used: set[int] = set()
    terms: list[str] = []
    for at, token in enumerate(tokens):
        month = MONTHS.get(token)
        if month is None or at in used:
            continue
        parts = {at}
        day = _day_before(tokens, at, parts) if at - 1 not in used else None
        after = at + 1
        if day is None and after < len(tokens):
            day = _day(tokens[after])
            if day is not None:
                parts.add(after)
                after += 1
        year = _year(tokens, after, parts)
        introduced = at > 0 and tokens[at - 1] in _BEFORE
        if token in _AMBIGUOUS and len(parts) == 1 and not introduced:
            continue
        used |= parts
        terms += terms_of(year, month, day)
    return [token for at, token in enumerate(tokens) if at not in used], terms


def _day(token: str) -> int | None:
    found = _ORDINAL.match(token)
    return int(found[1]) if found and 1 <= int(found[1]) <= 31 else None


def _year(tokens: list[str], at: int, parts: set[int]) -> str | None:
    """The year at ``at``, or one word such as "of" later."""
    for place in (at, at + 1):
        if place >= len(tokens):
            return None
        if _YEAR.match(tokens[place]):
            parts.update(range(at, place + 1))
            return tokens[place]
        if tokens[place] not in _BETWEEN:
            return None
    return None


def _day_before(tokens: list[str], at: int, parts: set[int]) -> int | None:
    place = at - 1
    if place > 0 and tokens[place] in _BETWEEN:
        place -= 1
    if place < 0:
        return None
    day = _day(tokens[place])
    if day is not None:
        parts.update(range(place, at))
    return day


def cut_han_dates(text: str) -> tuple[str, list[str]]:
    """(the text without dates such as 2023年5月8日 or 2023년 5월 8일, their terms)."""
    if "月" not in text and "월" not in text:
        return text, []
    text = _HAN_WRITTEN.sub(lambda found: found[0].translate(_HAN_DIGITS), text)
    text = _HAN_SMALL.sub(_small_number, text)
    terms: list[str] = []

    def take(found: re.Match[str]) -> str:
        month, day = int(found[2]), int(found[3]) if found[3] else None
        if not _valid(month, day):
            return found[0]
        terms.extend(terms_of(found[1], month, day))
        return " "

    return _HAN.sub(take, text), terms


def _small_number(found: re.Match[str]) -> str:
    """Chinese numerals 1-31 in front of a month or a day."""
    written = found[0]
    if "十" not in written:
        return written.translate(_HAN_DIGITS)
    tens, _, ones = written.partition("十")
    return str(int(tens.translate(_HAN_DIGITS) or 1) * 10 + int(ones.translate(_HAN_DIGITS) or 0))
