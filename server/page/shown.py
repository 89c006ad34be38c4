"""How things are shown to a person: times, sizes, counts, and text that came from outside.

Filters and functions for the templates. Text from outside is data: Jinja escapes it, and what could
reorder or hide what stands beside it (direction overrides, control characters) is made visible.
Knows values; no database, no request.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from markupsafe import Markup, escape

from memdb import Memory

SNIPPET_CHARS: Final = 280
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*\S)[ \t]*$", re.MULTILINE)  # of Markdown
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

KIND_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "profile": ("fact", "facts"),
    "chunk": ("part of a file", "parts of files"),
    "note": ("note", "notes"),
    "event": ("event", "events"),
    "message": ("message", "messages"),
}
LEVEL_WORDS: Final[Mapping[str, str]] = {
    "L0": "as written",
    "L1": "text packed, nothing lost",
    "L2": "meaning kept at 5 bits",
    "L3": "meaning kept at 2 bits",
    "L4": "words, time and a pointer to the file",
    "L5": "gone",
}


# --- time -----------------------------------------------------------------------------------------


def zone_of(name: str) -> tzinfo:
    """The zone of a database's setting: an IANA name, ``UTC`` or ``+HH:MM``."""
    if name[:1] in ("+", "-"):
        return datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo or UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


@dataclass(frozen=True, slots=True)
class When:
    """A moment as a page shows it: short words, and the exact time for whoever wants it."""

    words: str
    exact: str
    machine: str

    def __html__(self) -> str:
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            self.machine, self.exact, self.words
        )

    def __str__(self) -> str:
        return self.words


def when(moment: datetime, zone: tzinfo, now: datetime, precision: str = "exact") -> When:
    """``moment`` near ``now`` in relative words, farther off as a date; always with the exact."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    exact = _exact(local, precision, zone)
    return When(_words(local, today, precision), exact, moment.isoformat())


def _exact(local: datetime, precision: str, zone: tzinfo) -> str:
    if precision == "year":
        return str(local.year)
    if precision == "month":
        return f"{_MONTHS[local.month - 1]} {local.year}"
    day = f"{_DAYS[local.weekday()]} {long_day(local.date())}"
    if precision == "day":
        return day
    clock = f"{local:%H:%M}" if precision == "minute" else f"{local:%H:%M:%S}"
    return f"{day}, {clock} ({getattr(zone, 'key', None) or local.tzname()})"


def _words(local: datetime, today: datetime, precision: str) -> str:
    if precision in ("year", "month"):
        return _exact(local, precision, local.tzinfo or UTC)
    clock = "" if precision == "day" else f", {local:%H:%M}"
    days = (local.date() - today.date()).days
    if precision != "day" and abs(local - today) < timedelta(hours=1):
        minutes = round(abs((local - today).total_seconds()) / 60)
        if not minutes:
            return "just now"
        return f"{minutes} min ago" if local < today else f"in {minutes} min"
    if days in (-1, 0, 1):
        return ("yesterday", "today", "tomorrow")[days + 1] + clock
    if -7 < days < 0:
        return f"{-days} days ago{clock}"
    if 0 < days <= 14:
        return f"in {days} days"
    return long_day(local.date())


def long_day(day: date) -> str:
    """``4 Feb 2024``."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def day_heading(day: date) -> str:
    """``Sunday 4 Feb 2024``."""
    return f"{_DAYS[day.weekday()]} {long_day(day)}"


def as_time(text: str) -> datetime:
    """The moment that an ISO 8601 text names."""
    return datetime.fromisoformat(text)


def moment_of(memory: Memory) -> tuple[datetime, str] | None:
    """When it happened, else since when it is true, else when it was recorded; the precision."""
    if memory.event_time is not None:
        return memory.event_time, memory.precision
    if memory.valid_from is not None:
        return memory.valid_from, "day"
    return None if memory.recorded_at is None else (memory.recorded_at, "exact")


# --- numbers --------------------------------------------------------------------------------------


def size(count: float) -> str:
    """A number of bytes for a person: kB is 1,000."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 memory``, ``1,200 memories``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def memories(number: int) -> str:
    return counted(number, "memory", "memories")


def kind_word(kind: str, number: int = 1) -> str:
    """A kind in plain words; one of the user's own is its own word."""
    one, many = KIND_WORDS.get(kind, (kind, kind))
    return one if number == 1 else many


def level_word(level: str) -> str:
    return LEVEL_WORDS.get(level, level)


# --- text -----------------------------------------------------------------------------------------


def plain(text: str | None) -> Markup:
    """Text from outside as HTML: escaped, with invisible controls made visible."""
    if not text:
        return Markup("")
    found, last = Markup(""), 0
    for match in _CONTROL.finditer(text):
        mark = match.group()
        found += escape(text[last : match.start()])
        last = match.end()
        if mark == "\r":
            continue  # of a line's end
        name = unicodedata.name(mark, f"control character {ord(mark)}").lower()
        found += Markup('<span class="control" title="{}">U+{:04X}</span>').format(name, ord(mark))
    return found + escape(text[last:])


def marked(text: str, terms: Sequence[str]) -> Markup:
    """``plain`` with the question's words marked where a word begins with one of them."""
    wanted = sorted({term.casefold() for term in terms if len(term) > 1}, key=len, reverse=True)
    if not wanted:
        return plain(text)
    stems = "|".join(re.escape(term) for term in wanted)
    found, last = Markup(""), 0
    for match in re.finditer(rf"\b(?:{stems})\w{{0,4}}\b", text, re.IGNORECASE):
        found += plain(text[last : match.start()])
        found += Markup("<mark>{}</mark>").format(plain(match.group()))
        last = match.end()
    return found + plain(text[last:])


def words_of(memory: Memory) -> str:
    """What a memory says: its text, or its data where it has none; a fact by its name."""
    if memory.key is not None:
        return f"{fact_name(memory.key)}: {value_words(fact_value(memory))}"
    return memory.text if memory.text is not None else value_words(memory.data)


def snippet(text: str, terms: Sequence[str] = (), limit: int = SNIPPET_CHARS) -> str:
    """At most ``limit`` characters of a text on one line, around the first of the words."""
    flat = " ".join(_HEADING.sub(r"\1:", text).split())
    if len(flat) <= limit:
        return flat
    lowered = flat.casefold()
    places = [place for term in terms if (place := lowered.find(term.casefold())) > 0]
    start = max(0, min(places) - limit // 4) if places and min(places) > limit // 2 else 0
    if start:
        start = flat.find(" ", start) + 1 or start
    part = flat[start : start + limit]
    end = part.rfind(" ") if start + limit < len(flat) else -1
    part = part[:end] if end > limit // 2 else part
    return ("… " if start else "") + part + (" …" if start + len(part) < len(flat) else "")


def fact_value(memory: Memory) -> Any:
    return memory.text if memory.data is None else memory.data


def fact_name(key: str) -> str:
    """``shoe_size`` as ``shoe size``."""
    return key.replace("_", " ")


def value_words(value: Any) -> str:
    """A JSON value for a person: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(str(one) for one in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def source_words(source: str) -> str:
    """Where a memory is from, in few words: a file by its name, an application by its own."""
    scheme, _, rest = source.partition(":")
    if scheme == "file":
        name = unquote(urlsplit(source).path.rsplit("/", 1)[-1]) or source
        lines = urlsplit(source).fragment
        return f"{name}, lines {lines.replace('L', '')}" if lines.startswith("L") else name
    if scheme in ("app", "agent") and rest:
        return rest if scheme == "app" else f"{rest} (agent)"
    return {"cli": "command line", "form": "form"}.get(source, source)


def subject_words(subject: str | None) -> str:
    return "You" if subject in (None, "", "user") else str(subject)
