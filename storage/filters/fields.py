"""The fields a filter may name: their numbers in keys, their types, and how a memory shows them.

The numbers are part of the storage format: append, never renumber. ``metadata.*`` is the only open
set; its numbers are allocated in ``paths``. This file knows no table and no operator.

Left out on purpose: ``use_count``, ``strength`` and ``last_used`` change without the memory
changing, ``text`` and ``data`` are searched, not compared, and an ``id`` is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from memdb.types import Memory, to_micros

FieldType = Literal["string", "number", "bool", "time"]
JsonScalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """One top-level field.

    ``many``: it holds a list. ``parts``: a path, with prefix bitmaps. ``always``: no memory lacks
    it.
    """

    number: int
    name: str
    type: FieldType
    many: bool = False
    parts: bool = False
    always: bool = False


SETS: Final = 0  # named row sets
UNINDEXED: Final = 1  # rows with metadata keys past the limit, by bucket of the key
FIRST_METADATA: Final = 256  # metadata paths are numbered from here
LAST_METADATA: Final = 0xFFFF

FIELDS: Final = {
    field.name: field
    for field in (
        Field(16, "kind", "string", always=True),
        Field(17, "source", "string", parts=True, always=True),
        Field(18, "namespace", "string", parts=True, always=True),
        Field(19, "stream", "string", parts=True),
        Field(20, "position", "number"),
        Field(21, "tags", "string", many=True),
        Field(22, "subject", "string"),
        Field(23, "key", "string"),
        Field(24, "about", "string", many=True),
        Field(25, "external_id", "string"),
        Field(26, "event_time", "time"),
        Field(27, "event_end", "time"),
        Field(28, "recorded_at", "time"),
        Field(29, "retired_at", "time"),
        Field(30, "valid_from", "time"),
        Field(31, "valid_to", "time"),
        Field(32, "expires_at", "time"),
        Field(33, "importance", "number"),
        Field(34, "pinned", "bool", always=True),
        Field(35, "sensitivity", "string"),
        Field(36, "derived_from", "string", many=True),
        Field(37, "space", "string"),
    )
}
METADATA: Final = "metadata."


def field_values(memory: Memory, name: str) -> tuple[JsonScalar, ...] | None:
    """The comparable values a memory has under a field, or None when it lacks the field.

    Times are microseconds UTC. A top-level field lacks what is None or an empty list; a metadata
    key that holds null, an empty list or an object is there. Lists count element by element;
    objects and lists inside lists have no comparable value.
    """
    if name.startswith(METADATA):
        return _at_path(memory.metadata, name.removeprefix(METADATA))
    value = getattr(memory, name)
    if value is None:
        return None
    field = FIELDS[name]
    if field.many:
        return tuple(value) or None
    if field.type == "time":
        return (to_micros(value),)
    return (value,)


def _at_path(tree: dict[str, Any], path: str) -> tuple[JsonScalar, ...] | None:
    """A key may itself contain dots: every way of reading the path counts."""
    found: tuple[JsonScalar, ...] | None = None
    for key, value in tree.items():
        if key == path:
            found = (found or ()) + tuple(_scalars(value))
        elif isinstance(value, dict) and path.startswith(key + "."):
            below = _at_path(value, path[len(key) + 1 :])
            if below is not None:
                found = (found or ()) + below
    return found


def flatten(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, list[JsonScalar]]]:
    """(dotted path, comparable values) of every key of a metadata object, inner ones included."""
    for key, value in tree.items():
        path = above + key
        yield path, list(_scalars(value))
        if isinstance(value, dict):
            yield from flatten(value, path + ".")


def _scalars(value: Any) -> Iterator[JsonScalar]:
    if isinstance(value, list | tuple):
        yield from (item for item in value if not isinstance(item, dict | list | tuple))
    elif not isinstance(value, dict):
        yield value


@lru_cache(maxsize=4096)
def parts(text: str) -> tuple[str, ...]:
    """The prefixes of a path that end at a component boundary, outermost first.

    A component ends at the first of a run of ``/``, ``:`` or ``#``: ``file:///a/b.md#L1`` gives
    ``file:``, ``file:///a/`` and ``file:///a/b.md#``. (Only the first: whether a longer run ends
    there cannot be told from a prefix alone.) At most eight; deeper prefixes are found among the
    strings themselves.
    """
    found: list[str] = []
    inside = False
    for at, character in enumerate(text[:-1], 1):
        if character not in "/:#":
            inside = True
        elif inside:
            inside = False
            found.append(text[:at])
            if len(found) == 8:
                break
    return tuple(found)
