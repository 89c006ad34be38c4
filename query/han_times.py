"""Times in Chinese and Japanese questions, which stand there without blanks.

"昨天", "先週", "去年", "2023年5月8日": the first that is found, as local days. It reads no clock.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

from memdb.query import calendar_days as days_of
from memdb.query.calendar_days import Days

_DAYS: Final = {
    "今天": 0, "今日": 0, "昨天": -1, "昨日": -1, "前天": -2, "前日": -2, "一昨日": -2,
    "明天": 1, "明日": 1, "后天": 2, "後天": 2,
}  # fmt: skip
_PERIODS: Final = {
    "上周": ("week", -1), "上週": ("week", -1), "上星期": ("week", -1), "先週": ("week", -1),
    "本周": ("week", 0), "这周": ("week", 0), "今週": ("week", 0), "下周": ("week", 1),
    "来週": ("week", 1), "上个月": ("month", -1), "上個月": ("month", -1), "先月": ("month", -1),
    "这个月": ("month", 0), "今月": ("month", 0), "下个月": ("month", 1), "来月": ("month", 1),
    "去年": ("year", -1), "前年": ("year", -2), "今年": ("year", 0), "明年": ("year", 1),
    "来年": ("year", 1),
}  # fmt: skip

_NAMES: Final = re.compile("|".join(sorted({*_DAYS, *_PERIODS}, key=len, reverse=True)))
_DATE: Final = re.compile(r"((?:1[89]|20)\d\d)\s?年(?:\s?(\d{1,2})\s?月(?:\s?(\d{1,2})\s?日)?)?")


def han_days(question: str, today: date) -> Days | None:
    """The first time named in ``question``; None if there is none."""
    written = _DATE.search(question)
    if written:
        year, month, day = int(written[1]), written[2], written[3]
        if day:
            return days_of.one_day(year, int(month), int(day))
        if month:
            return days_of.month_days(year, int(month))
        return days_of.unit_of(date(year, 1, 1), "year")
    found = _NAMES.search(question)
    if not found:
        return None
    shift = _DAYS.get(found[0])
    if shift is not None:
        return days_of.unit_of(today + timedelta(shift), "day")
    unit, count = _PERIODS[found[0]]
    return days_of.unit_of(days_of.moved(today, unit, count), unit)
