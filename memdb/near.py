"""Near duplicates at write: which stored memories a new one repeats, found by its own vector.

``dedup="near"`` looks for memories of the same namespace and space whose vector has a cosine of
``LINKED_AT`` or more to the new one's. One that says the same words (but for case, blanks and
punctuation) and is the same otherwise is what was meant: nothing is written. Any other is stored
and linked: vectors cannot tell "is allergic" from "is not allergic" (.985 and more, measured in
query/README.md), so likeness alone never drops what was said. Without a vector, or in a space
that does not measure angles, only what is exactly the same is found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from pyroaring import BitMap

from memdb.engine import Engine
from memdb.rows import Entry
from memdb.storage import lookups, spaces
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

LINKED_AT: Final = 0.92
MAX_LINKS: Final = 5
# Numbers with their sign and marks, words, and the signs that mean something.
_SAID: Final = re.compile(
    r"[-+]?\d(?:[\d.,:/]*\d)?|[^\W\d]+"
    r"|[^\w\s.,;:!'\"()\[\]…\u2013\u2014-]"
)


def look(engine: Engine, entries: Sequence[Entry]) -> list[list[bytes]]:
    """For each entry the ids of what it is near to, nearest first; of the batch itself too."""
    found: list[list[bytes]] = [[] for _ in entries]
    groups: dict[tuple[str, int], list[int]] = {}
    for place, entry in enumerate(entries):
        plain = entry.memory.key is None and entry.memory.external_id is None
        if entry.vector is not None and plain:
            groups.setdefault((entry.memory.namespace, entry.space), []).append(place)
    if not groups:
        return found
    with engine.store.read() as txn:
        for (namespace, number), places in groups.items():
            space = spaces.get_space(txn, number)
            if space is None or space.metric != "cosine":
                continue
            allowed = engine.unexpired(txn, engine.live(txn), engine.now())
            allowed = allowed & engine.filters.equals(txn, "namespace", namespace)
            for place in places:
                found[place] = _stored(txn, engine, space, entries[place], allowed)
            for place, near in _among(entries, places):
                found[place] = (near + found[place])[:MAX_LINKS]
    return found


def _stored(
    txn: Reader,
    engine: Engine,
    space: spaces.SpaceRecord,
    entry: Entry,
    allowed: BitMap,
) -> list[bytes]:
    near = engine.vectors(space).search(txn, np.asarray(entry.vector), MAX_LINKS, allowed)
    rows = [int(row) for row in near.rows[near.distances <= 1 - LINKED_AT]]
    known = engine.records.get_many(txn, sorted(rows))
    return [require_id(known[row].id) for row in rows if known[row].key is None]


def _among(entries: Sequence[Entry], places: Sequence[int]) -> list[tuple[int, list[bytes]]]:
    """(place, ids of earlier entries of the batch that are near)."""
    if len(places) < 2:
        return []
    matrix = np.stack([np.asarray(entries[place].vector, np.float32) for place in places])
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    cosines = np.tril(unit @ unit.T, -1)
    result = []
    for at in np.flatnonzero((cosines >= LINKED_AT).any(axis=1)).tolist():
        order = np.argsort(-cosines[at], kind="stable")[:MAX_LINKS]
        near = [entries[places[j]].raw_id for j in order.tolist() if cosines[at, j] >= LINKED_AT]
        result.append((places[at], near))
    return result


def settle(
    txn: Writer,
    engine: Engine,
    alive: Callable[[int], bool],
    entry: Entry,
    ids: Sequence[bytes],
    new: Mapping[bytes, Memory],
) -> Memory | None:
    """The memory that says what the entry does; None once the entry is linked to what is near.

    ``ids`` as ``look`` found them; ``new``: those of the batch that are about to be written.
    """
    links: list[str] = []
    for raw_id in ids:
        row = lookups.row_of(txn, raw_id)
        other = new.get(raw_id)
        if other is None and row is not None and alive(row):
            other = engine.records.get(txn, row)
        if other is None or other.namespace != entry.memory.namespace:
            continue
        if same(entry.memory, other):
            return other
        links.append(other.id)
    entry.memory = entry.memory.replace(links=tuple(links))
    return None


def same(new: Memory, old: Memory) -> bool:
    """Whether ``new`` says what ``old`` says: the same words, and all else but its place."""
    return said(new.text) == said(old.text) and _rest(new) == _rest(old)


def said(text: str | None) -> list[str]:
    """The words, numbers and telling signs of a text, in order."""
    return _SAID.findall(unicodedata.normalize("NFKC", text or "").casefold())


def _rest(memory: Memory) -> Memory:
    return replace(
        memory,
        id="",
        text=None,
        recorded_at=None,
        source="",
        position=None,
        links=(),
        version=1,
        last_used=None,
        use_count=0,
        strength=None,
    )
