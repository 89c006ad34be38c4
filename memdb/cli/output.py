"""What commands print: JSON for machines, or lines for people.

Turns the results of the public interface into plain values and into text; decides nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import IO, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from memdb.cli import terminal
from memdb.cli.terminal import Style

_DATE = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d"}


def plain(value: Any) -> Any:
    """``value`` as JSON can say it: times as ISO 8601, results as objects by field name."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, Iterable):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        return value.item()
    return str(value)


class Output:
    """Where a command writes its result."""

    def __init__(self, as_json: bool, stream: IO[str] | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.as_json = as_json
        self.style = Style(self.stream)
        self.columns = terminal.width()
        self.zone: str | None = None  # in which times are shown that carry none themselves

    def json(self, value: Any) -> None:
        """One JSON document, indented where a person looks, on one line otherwise."""
        indent = 2 if self.stream.isatty() else None
        self.line(json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False))

    def line(self, text: str = "") -> None:
        self.stream.write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.line(text)

    def note(self, text: str) -> None:
        """A remark for a person, beside the result."""
        self.line(self.style(text, "dim"))

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.lines(terminal.table(headers, rows, self.style, columns=self.columns))

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """One ``name  value`` a line, nested mappings indented; long text is wrapped."""
        listed = list(pairs)
        wide = max((len(name) for name, _ in listed), default=0)
        for name, value in listed:
            label = self.style(name.ljust(wide), "bold")
            first, *rest = _shown(value, max(20, self.columns - wide - 2))
            self.line(f"{label}  {first}".rstrip())
            self.lines((" " * (wide + 2) + line).rstrip() for line in rest)

    # --- memories -----------------------------------------------------------------------

    def moment_of(self, memory: Any) -> str:
        """When it happened, or else since when it was true, in the zone it was written in."""
        if memory.event_time is None:
            return self.day(memory.valid_from)
        shape = _DATE.get(memory.precision, "%Y-%m-%d %H:%M")
        return local(memory.event_time, memory.time_zone or self.zone).strftime(shape)

    def origin(self, memory: Any) -> list[str]:
        """When and where a memory is from: time, stream, source. A file by its name and lines."""
        source = str(memory.source)
        if source.startswith("file:"):
            parts = [self.moment_of(memory), unquote(source.rsplit("/", 1)[-1])]
        else:
            parts = [self.moment_of(memory), memory.stream or "", source]
        return [terminal.printable(part) for part in parts if part]

    def day(self, moment: datetime | None) -> str:
        """A day in the database's zone; empty for no time."""
        return "" if moment is None else f"{local(moment, self.zone):%Y-%m-%d}"

    def memories(self, memories: Iterable[Any]) -> None:
        """A table of memories: id, time, kind, text."""
        rows = [
            (memory.id, self.moment_of(memory), memory.kind, words_of(memory))
            for memory in memories
        ]
        if rows:
            self.table(("id", "time", "kind", "text"), rows)
        else:
            self.note("nothing found")

    def hit(self, rank: int, hit: Any, *, explain: bool) -> None:
        """One recalled memory: rank, score, text, where it is from, and why it was found."""
        head = f"{rank:>2}  {self.style(f'{hit.score:.2f}', 'green', 'bold')}  "
        indent = " " * 10
        text = terminal.printable(words_of(hit.memory))
        first, *rest = terminal.wrap(text, self.columns - 10, limit=3) or [""]
        self.line(head + first)
        self.lines(indent + line for line in rest)
        where = " · ".join(self.origin(hit.memory))
        self.line(indent + self.style(terminal.fit(where, self.columns - 10), "dim"))
        if explain:
            for part in terminal.wrap(why(hit), self.columns - 10):
                self.line(indent + self.style(part, "cyan"))
            self.line(indent + self.style(hit.id, "dim"))


def why(hit: Any) -> str:
    """How a hit came to its score, in one line."""
    parts = []
    if hit.why.terms:
        parts.append("words " + ", ".join(terminal.printable(term) for term in hit.why.terms))
    if hit.why.bm25 is not None:
        parts.append(f"bm25 {hit.why.bm25:.1f}")
    if hit.why.cosine is not None:
        parts.append(f"cosine {hit.why.cosine:.2f}")
    if hit.why.stages:
        stages = " ".join(f"{value:+.2f} {name}" for name, value in hit.why.stages.items())
        parts.append(f"rank {stages}")
    return "why: " + " · ".join(parts or ["no shared word or meaning; nothing better is stored"])


def words_of(memory: Any) -> str:
    """The text of a memory, or its data where it has none."""
    if memory.text is not None:
        return str(memory.text)
    return json.dumps(plain(memory.data), ensure_ascii=False)


def local(moment: datetime, zone: str | None) -> datetime:
    """``moment`` in a zone (a name or ``+HH:MM``); unchanged where the zone is not known here."""
    if not zone:
        return moment
    if zone[0] in "+-":
        return moment.astimezone(datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo)
    try:
        return moment.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        return moment


def size(count: int) -> str:
    """A number of bytes for a person: kB is 1,000."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 memory``, ``1,200 memories``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _shown(value: Any, columns: int, depth: int = 0) -> list[str]:
    """Lines that show a plain value."""
    value = plain(value)
    if value is None:
        return ["-"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int):
        return [f"{value:,}"]
    if isinstance(value, float):
        return [f"{value:.4g}"]
    if isinstance(value, str):
        lines = terminal.printable_lines(value).splitlines()
        return [part for line in lines for part in terminal.wrap(line, columns) or [""]] or [""]
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        return [", ".join(terminal.printable(inner) for inner in value) or "-"]
    if isinstance(value, dict) and value and depth < 3:
        lines = []
        for name, inner in value.items():
            first, *rest = _shown(inner, max(10, columns - len(name) - 2), depth + 1)
            nested = isinstance(inner, dict) and bool(inner)
            lines += [name, f"  {first}"] if nested else [f"{name}: {first}"]
            lines += ["  " + line for line in rest]
        return lines
    return [terminal.printable(json.dumps(value, ensure_ascii=False))]
