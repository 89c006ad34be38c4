"""A compiled filter: frozen, hashable, canonical, and knowing no text of what the user typed.

Every operator reduces to nine nodes: ``$ne``, ``$nin`` are ``Not(Equals)``, ``$contains`` is
``Equals``, ``$all`` an ``And`` of them, a comparison of times a ``Within``. Two filters that
say the same in another order are equal, so a compiled filter can key a cache. This file
knows no index and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from memdb.storage.filters import JsonScalar

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "And",
    "Between",
    "Equals",
    "Exists",
    "Filter",
    "Not",
    "Or",
    "Prefix",
    "Scalar",
    "Span",
    "Within",
    "all_of",
    "any_of",
    "negated",
]


class Scalar(NamedTuple):
    """A literal with its type beside it, since to Python 1 == True."""

    type: Literal["string", "number", "bool", "null"]
    value: JsonScalar


class Span(NamedTuple):
    """start <= t < end in microseconds UTC; None is open."""

    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Base of the nodes."""

    @property
    def children(self) -> tuple[Filter, ...]:
        return ()

    @property
    def depth(self) -> int:
        """Levels of nodes; a single condition has one."""
        return 1 + max((child.depth for child in self.children), default=0)


@dataclass(frozen=True, slots=True)
class Equals(Filter):
    """A value of the field is one of ``values``."""

    field: str
    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        shown = ", ".join(repr(value) for _, value in self.values[:3])
        more = f", ... {len(self.values)} values" if len(self.values) > 3 else ""
        return f"{self.field} in [{shown}{more}]"


@dataclass(frozen=True, slots=True)
class Between(Filter):
    """A number or a string of the field lies between; None is no bound."""

    field: str
    low: float | str | None
    high: float | str | None
    include_low: bool = True
    include_high: bool = False

    def __str__(self) -> str:
        left = "" if self.low is None else f"{self.low!r} {'<=' if self.include_low else '<'} "
        right = "" if self.high is None else f" {'<=' if self.include_high else '<'} {self.high!r}"
        return f"{left}{self.field}{right}"


@dataclass(frozen=True, slots=True)
class Within(Filter):
    """The time of the field lies in one of the spans, which are ascending and disjoint."""

    field: str
    spans: tuple[Span, ...]

    def __str__(self) -> str:
        return f"{self.field} within {len(self.spans)} span(s)"


@dataclass(frozen=True, slots=True)
class Prefix(Filter):
    """A string of the field starts with ``text``."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field} starts with {self.text!r}"


@dataclass(frozen=True, slots=True)
class Exists(Filter):
    """The memory has the field."""

    field: str

    def __str__(self) -> str:
        return f"{self.field} exists"


@dataclass(frozen=True, slots=True)
class And(Filter):
    """Every part holds; of no parts: everything."""

    parts: tuple[Filter, ...]

    @property
    def children(self) -> tuple[Filter, ...]:
        return self.parts

    def __str__(self) -> str:
        return "all of" if self.parts else "everything"


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Some part holds; of no parts: nothing."""

    parts: tuple[Filter, ...]

    @property
    def children(self) -> tuple[Filter, ...]:
        return self.parts

    def __str__(self) -> str:
        return "any of" if self.parts else "nothing"


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not hold, be it that the memory lacks the field."""

    part: Filter

    @property
    def children(self) -> tuple[Filter, ...]:
        return (self.part,)

    def __str__(self) -> str:
        return "not"


EVERYTHING = And(())
NOTHING = Or(())


def all_of(parts: Iterable[Filter]) -> Filter:
    """The canonical conjunction: flat, without repeats, in one order, ranges of one field met."""
    flat = _flat(parts, And)
    if any(part == NOTHING for part in flat):
        return NOTHING
    merged = _in_order(_meet_ranges(flat))
    return merged[0] if len(merged) == 1 else And(merged)


def any_of(parts: Iterable[Filter]) -> Filter:
    """The canonical disjunction."""
    flat = _flat(parts, Or)
    if any(part == EVERYTHING for part in flat):
        return EVERYTHING
    ordered = _in_order(flat)
    return ordered[0] if len(ordered) == 1 else Or(ordered)


def negated(part: Filter) -> Filter:
    """The canonical complement."""
    if isinstance(part, Not):
        return part.part
    return NOTHING if part == EVERYTHING else EVERYTHING if part == NOTHING else Not(part)


def union_of(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Ascending, disjoint, without empty ones."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start is not None, s.start or 0)):
        if span.start is not None and span.end is not None and span.start >= span.end:
            continue
        last = merged[-1] if merged else None
        if last is not None and (last.end is None or (span.start or last.end) <= last.end):
            if last.end is not None:
                end = None if span.end is None else max(last.end, span.end)
                merged[-1] = Span(last.start, end)
        else:
            merged.append(span)
    return tuple(merged)


def _flat(parts: Iterable[Filter], kind: type[And | Or]) -> list[Filter]:
    flat: list[Filter] = []
    for part in parts:
        if isinstance(part, kind):
            flat.extend(part.children)
        else:
            flat.append(part)
    return flat


def _in_order(parts: Iterable[Filter]) -> tuple[Filter, ...]:
    distinct = set(parts)
    if len(distinct) < 2:
        return tuple(distinct)
    named: dict[tuple[str, str], list[Filter]] = {}
    for part in distinct:
        named.setdefault((type(part).__name__, getattr(part, "field", "")), []).append(part)
    ordered: list[Filter] = []
    for name in sorted(named):  # few are of one kind and one field, and only those are written out
        alike = named[name]
        ordered += sorted(alike, key=_written) if len(alike) > 1 else alike
    return tuple(ordered)


def _written(part: Filter) -> str:
    """Different for different filters; what ``repr`` says, in a tenth of the time."""
    if part.children:
        return f"{type(part).__name__}{[_written(child) for child in part.children]}"
    names: tuple[str, ...] = part.__slots__
    values = [getattr(part, name) for name in names]
    return f"{type(part).__name__}{values}"


def _meet_ranges(parts: list[Filter]) -> list[Filter]:
    """Spans of one time field become one: a time field has one value, so they hold together."""
    times: dict[str, Within] = {}
    rest: list[Filter] = []
    for part in parts:
        if not isinstance(part, Within):
            rest.append(part)
        elif part.field in times:
            met = _intersection(times[part.field].spans, part.spans)
            times[part.field] = Within(part.field, met)
        else:
            times[part.field] = part
    return [*rest, *times.values()]


def _intersection(left: tuple[Span, ...], right: tuple[Span, ...]) -> tuple[Span, ...]:
    return union_of(
        Span(
            max((s for s in (a.start, b.start) if s is not None), default=None),
            min((e for e in (a.end, b.end) if e is not None), default=None),
        )
        for a in left
        for b in right
    )
