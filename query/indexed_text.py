"""What of a memory is found by words.

================  ==========================================================================
text              as it is
subject, key      of a profile fact, unless the text says them already
about, tags       names of people, things and topics
metadata          strings under the names of ``CONTEXT_METADATA`` (who spoke, a title, a place)
data              its strings, when there is no text, up to ``MAX_DATA_CHARS``
source            the name of the file, for ``file:`` sources
event_time        the day, month or year, by its precision, in the memory's own zone
================  ==========================================================================

Date and speaker are worth indexing because questions name them ("what did Ana say in May?").
What only identifies (ids, other metadata) is for filters. Raise ``TOKENIZER_VERSION`` with a
change here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from memdb.errors import InvalidArgument
from memdb.times import load_zone
from memdb.types import Memory

CONTEXT_METADATA: Final = (
    "speaker", "author", "sender", "from", "to", "participants", "attendees",
    "title", "subject", "heading", "headings", "section", "place", "location",
)  # fmt: skip
_CONTEXT_NAMES: Final = frozenset(CONTEXT_METADATA)
MAX_DATA_CHARS: Final = 4_000
_DATE_FORMATS: Final = {"year": 4, "month": 7}  # how much of YYYY-MM-DD is meant


def indexed_text(memory: Memory) -> str:
    """The text whose terms stand for ``memory`` in the lexical index; may be empty."""
    text = memory.text or ""
    parts = [text]
    for name in (memory.subject, memory.key):
        if name and name not in text:
            parts.append(name)
    for name in memory.about + memory.tags:
        if name and name not in text:
            parts.append(name)
    metadata = memory.metadata
    if metadata and not _CONTEXT_NAMES.isdisjoint(metadata):
        parts += _context(metadata, text)
    if not text and memory.data is not None:
        parts.append(" ".join(_strings(memory.data))[:MAX_DATA_CHARS])
    if memory.source.startswith("file:"):
        parts.append(_file_name(memory.source))
    moment = memory.event_time
    if moment is not None:
        zone, precision = memory.time_zone, memory.precision
        if precision == "exact" and (zone is None or zone == "UTC"):
            parts.append(moment.isoformat()[:10])  # nearly all; times of memories are in UTC
        else:
            parts.append(_date(moment, zone, precision))
    return "\n".join(parts)


def _context(metadata: dict[str, Any], text: str) -> list[str]:
    found = []
    for name in CONTEXT_METADATA:
        if name in metadata:
            found += [one for one in _strings(metadata[name]) if one not in text]
    return found


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _file_name(source: str) -> str:
    """``plan`` of ``file:///home/ana/plan.md#L10-L42``."""
    name = unquote(source.partition("#")[0].rsplit("/", 1)[-1])
    return name.rsplit(".", 1)[0] if "." in name[1:] else name


def _date(moment: datetime, zone: str | None, precision: str) -> str:
    if zone not in (None, "UTC"):
        # Within a day of the calendar's ends no zone can be applied: it stays UTC.
        with contextlib.suppress(OverflowError):
            moment = moment.astimezone(_zone(zone))
    return moment.date().isoformat()[: _DATE_FORMATS.get(precision, 10)]


@lru_cache(maxsize=64)
def _zone(name: str | None) -> tzinfo:
    """UTC for a zone that this machine does not know any more."""
    try:
        return load_zone(name or "UTC")
    except InvalidArgument:
        return UTC
