"""A memory as the terms it is filed under: what a write enters and an erase takes out.

    ("set",    number, code 8)        a special set: present, true, null, ...
    ("text",   number, text)          a string value
    ("part",   number, prefix)        a path prefix at a component boundary
    ("number", number, ordered key)   a number
    ("time",   number, ordered key)   a time

``number`` is the field's. This file reads memories and decides what is indexed; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Final, Literal

from memdb.storage.filters.fields import FIELDS, UNINDEXED, JsonScalar, flatten, parts
from memdb.storage.filters.ordered import number_key, time_key
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
_EXTERNAL_ID = FIELDS["external_id"].number
_PINNED = FIELDS["pinned"].number
_NAMESPACE = FIELDS["namespace"].number
_PLAIN = frozenset((str, int, float, bool, type(None)))

# The fields that many memories of a batch have in common: it is grouped by all of them at once.
_SHARED = tuple(
    f for f in FIELDS.values() if f.type == "string" and not f.many and f.number != _EXTERNAL_ID
)
shared_part: Callable[[Memory], tuple[str | bool | None, ...]] = attrgetter(
    "pinned", *(f.name for f in _SHARED)
)


def terms_of(
    memory: Memory, path_number: PathNumber, bucket: Callable[[str], bytes]
) -> Iterator[Term]:
    """The terms of one memory; may repeat. ``path_number(namespace, path)``: None is unindexed."""
    yield from shared_terms(shared_part(memory))
    yield from own_terms(memory, path_number, bucket)


def shared_terms(shared: tuple[str | bool | None, ...]) -> Iterator[Term]:
    """The terms of what ``shared_part`` gives."""
    # Of the fields that no memory lacks, one stands for all; of times and numbers, the entries.
    yield "set", _NAMESPACE, PRESENT
    if shared[0]:
        yield "set", _PINNED, TRUE
    for field, text in zip(_SHARED, shared[1:], strict=True):
        if not isinstance(text, str):
            continue
        yield "text", field.number, text
        if not field.always:
            yield "set", field.number, PRESENT
        if field.parts:
            for prefix in parts(text):
                yield "part", field.number, prefix


def own_terms(
    memory: Memory, path_number: PathNumber, bucket: Callable[[str], bytes]
) -> Iterator[Term]:
    """The other terms of a memory."""
    if memory.external_id is not None:
        yield "text", _EXTERNAL_ID, memory.external_id
        yield "set", _EXTERNAL_ID, PRESENT
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
