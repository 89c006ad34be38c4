"""A memory as the terms it is filed under: what a write enters and an erase takes out.

    ("set",    number, code 8)        a special set: present, true, null, ...
    ("text",   number, text)          a string value
    ("part",   number, prefix)        a path prefix at a component boundary
    ("number", number, ordered key)   a number
    ("time",   number, ordered key)   a time

``number`` is the field's. ``terms_of`` gives those of one memory, ``gather`` those of many, field
by field. This file reads memories and decides what is indexed; it writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import Final, Literal

from memdb.storage.filters.fields import FIELDS, UNINDEXED, Field, JsonScalar, flatten, parts
from memdb.storage.filters.ordered import number_key, number_keys, time_key
from memdb.types import Memory, to_micros

Term = tuple[Literal["set", "text", "part", "number", "time"], int, bytes | str | int]

# Codes of special sets; the first byte of a text's hash is at least 0x80, radix levels lie between.
PRESENT: Final = bytes((0, 0, 0, 0, 0, 0, 0, 1))  # rows that have the field
TRUE: Final = bytes((0, 0, 0, 0, 0, 0, 0, 2))
FALSE: Final = bytes((0, 0, 0, 0, 0, 0, 0, 3))
NULL: Final = bytes((0, 0, 0, 0, 0, 0, 0, 4))
LONG: Final = bytes((0, 0, 0, 0, 0, 0, 0, 5))  # rows with a string too long to keep in order
SEVERAL: Final = bytes((0, 0, 0, 0, 0, 0, 0, 6))  # rows with more than one value (metadata)
EMPTY: Final = bytes((0, 0, 0, 0, 0, 0, 0, 7))  # rows with an object or an empty list (metadata)
AFTER_SPECIAL: Final = bytes((0, 0, 0, 0, 0, 0, 0, 8))  # TRUE to EMPTY: not a string, or not alone

PathNumber = Callable[[str, str], int | None]

_TIMES = tuple((f.number, f.name) for f in FIELDS.values() if f.type == "time")
_NUMBERS = tuple((f.number, f.name) for f in FIELDS.values() if f.type == "number")
_LISTS = tuple((f.number, f.name) for f in FIELDS.values() if f.many)
_PINNED = FIELDS["pinned"].number
_NAMESPACE = FIELDS["namespace"].number
_PLAIN = frozenset((str, int, float, bool, type(None)))

_STRINGS = tuple(f for f in FIELDS.values() if f.type == "string" and not f.many)


def terms_of(
    memory: Memory, path_number: PathNumber, bucket: Callable[[str], bytes]
) -> Iterator[Term]:
    """The terms of one memory; may repeat. ``path_number(namespace, path)``: None is unindexed."""
    # Of the fields that no memory lacks, one stands for all; of times and numbers, the entries.
    yield "set", _NAMESPACE, PRESENT
    if memory.pinned:
        yield "set", _PINNED, TRUE
    for one in _STRINGS:
        text = getattr(memory, one.name)
        if text is None:
            continue
        yield "text", one.number, text
        if not one.always:
            yield "set", one.number, PRESENT
        if one.parts:
            for prefix in parts(text):
                yield "part", one.number, prefix
    for number, name in _LISTS:
        items = getattr(memory, name)
        if items:
            yield "set", number, PRESENT
            for item in items:
                yield "text", number, item
    for number, name in _TIMES:
        moment = getattr(memory, name)
        if moment is not None:
            yield "time", number, time_key(to_micros(moment))
    for number, name in _NUMBERS:
        value = getattr(memory, name)
        if value is not None:
            yield "number", number, number_key(value)
    if memory.metadata:
        yield from _metadata_terms(memory, path_number, bucket)


def _metadata_terms(
    memory: Memory, path_number: PathNumber, bucket: Callable[[str], bytes]
) -> Iterator[Term]:
    metadata = memory.metadata
    items: Iterable[tuple[str, list[JsonScalar]]]
    if all(type(value) in _PLAIN for value in metadata.values()):
        items = ((path, [value]) for path, value in metadata.items())
    else:
        items = flatten(metadata)
    seen: dict[int, int] = {}
    for path, values in items:
        number = path_number(memory.namespace, path)
        if number is None:
            yield "set", UNINDEXED, bucket(path)
            continue
        yield "set", number, PRESENT
        if not values:
            yield "set", number, EMPTY
        for value in values:
            yield _scalar_term(number, value)
        seen[number] = seen.get(number, 0) + len(values)
        if seen[number] > 1:
            yield "set", number, SEVERAL


def _scalar_term(number: int, value: JsonScalar) -> Term:
    if isinstance(value, str):
        return "text", number, value
    if isinstance(value, bool):
        return "set", number, TRUE if value else FALSE
    if value is None:
        return "set", number, NULL
    return "number", number, number_key(value)


# --- many memories ------------------------------------------------------------------------------


@dataclass(slots=True)
class Gathered:
    """The terms of many memories: rows by field and value."""

    sets: defaultdict[tuple[int, bytes], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    parts: defaultdict[tuple[int, str], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    texts: defaultdict[int, defaultdict[str, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    ordered: defaultdict[int, list[tuple[int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, term: Term, row: int) -> None:
        kind, number, value = term
        if isinstance(value, int):
            self.ordered[number].append((value, row))
        elif isinstance(value, bytes):
            self.sets[number, value].append(row)
        elif kind == "part":
            self.parts[number, value].append(row)
        else:
            self.texts[number][value].append(row)


def gather(
    pairs: Sequence[tuple[int, Memory]],
    path_number: PathNumber,
    bucket: Callable[[str], bytes],
) -> Gathered:
    """The terms of all ``pairs`` of (row, memory): what ``terms_of`` says of each."""
    found = Gathered()
    rows, memories = [row for row, _ in pairs], [memory for _, memory in pairs]
    found.sets[_NAMESPACE, PRESENT] = rows
    pinned = list(compress(rows, map(attrgetter("pinned"), memories)))
    if pinned:
        found.sets[_PINNED, TRUE] = pinned
    for one in _STRINGS:
        values = list(map(attrgetter(one.name), memories))
        if values.count(None) < len(values):
            _gather_strings(found, one, rows, values)
    for number, name in _LISTS:
        lists = list(map(attrgetter(name), memories))
        if any(lists):
            found.sets[number, PRESENT] = list(compress(rows, lists))
            by_text = found.texts[number]
            for row, items in zip(rows, lists, strict=True):
                for item in items:
                    by_text[item].append(row)
    for number, name in _TIMES:
        times = list(map(attrgetter(name), memories))
        if times.count(None) < len(times):
            found.ordered[number] = [
                (time_key(to_micros(moment)), row)
                for row, moment in zip(rows, times, strict=True)
                if moment is not None
            ]
    for number, name in _NUMBERS:
        _gather_numbers(found, number, zip(rows, map(attrgetter(name), memories), strict=True))
    _gather_metadata(found, pairs, path_number, bucket)
    return found


def _gather_strings(
    found: Gathered, one: Field, rows: list[int], values: Sequence[str | None]
) -> None:
    by_text = found.texts[one.number]
    first = values[0]
    if first is not None and values.count(first) == len(values):  # a kind, a namespace, a source
        by_text[first] += rows
    else:
        for row, text in zip(rows, values, strict=True):
            if text is not None:
                by_text[text].append(row)
    if not one.always:
        found.sets[one.number, PRESENT] = [row for members in by_text.values() for row in members]
    if one.parts:
        for text, members in by_text.items():
            for prefix in parts(text):
                found.parts[one.number, prefix] += members


def _gather_numbers(
    found: Gathered, number: int, pairs: Iterable[tuple[int, float | None]]
) -> None:
    given = [(row, value) for row, value in pairs if value is not None]
    if given:
        keys = number_keys([value for _, value in given])
        found.ordered[number] += zip(keys, [row for row, _ in given], strict=True)


def _gather_metadata(
    found: Gathered,
    pairs: Sequence[tuple[int, Memory]],
    path_number: PathNumber,
    bucket: Callable[[str], bytes],
) -> None:
    alike: defaultdict[tuple[str, tuple[str, ...]], list[tuple[int, Memory]]] = defaultdict(list)
    for pair in pairs:
        memory = pair[1]
        metadata = memory.metadata
        if metadata and _PLAIN.issuperset(map(type, metadata.values())):
            alike[memory.namespace, tuple(metadata)].append(pair)
        elif metadata:
            for term in _metadata_terms(memory, path_number, bucket):
                found.add(term, pair[0])
    # What comes from one place has the same keys in the same order: a column a key.
    for (namespace, paths), members in alike.items():
        rows = [row for row, _ in members]
        values = zip(*[memory.metadata.values() for _, memory in members], strict=True)
        for path, column in zip(paths, values, strict=True):
            number = path_number(namespace, path)
            if number is None:
                found.sets[UNINDEXED, bucket(path)] += rows
            else:
                _gather_column(found, number, rows, column)


def _gather_column(
    found: Gathered, number: int, rows: list[int], column: tuple[JsonScalar, ...]
) -> None:
    """The terms of one metadata field that all of ``rows`` have, with one value each."""
    found.sets[number, PRESENT] += rows
    by_text = found.texts[number]
    figures: list[tuple[int, float | None]] = []
    for row, value in zip(rows, column, strict=True):
        if type(value) is str:
            by_text[value].append(row)
        elif type(value) is int or type(value) is float:
            figures.append((row, value))
        else:
            found.add(_scalar_term(number, value), row)
    _gather_numbers(found, number, figures)
