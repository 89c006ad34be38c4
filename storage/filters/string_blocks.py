"""Many strings entered at once into the sorted blocks of ``strings``.

Where a batch has entries for a good part of a field's blocks, all of them are read in one scan, and
those that get any are written together. Entries that change more than their block (it is full, or
has more in common than they) are handed back: ``strings`` enters them one after the other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from memdb.storage import tables
from memdb.storage.environment import WriteTxn

Entry = tuple[bytes, int]
_MANY = 64
_BLOCKS_AN_ENTRY = 4  # more blocks than so many times the entries are not all read


def enter(
    txn: WriteTxn,
    bounds: tuple[bytes, bytes],
    entries: Sequence[Entry],
    first_of: Callable[[bytes], Entry],
    joined: Callable[[bytes, Sequence[Entry]], bytes | None],
) -> Sequence[Entry]:
    """Enter (text, row) pairs, ascending, into a field's blocks; returns those that are left.

    ``bounds``: the field's keys. ``first_of`` and ``joined`` read and extend a block.
    """
    if len(entries) < _MANY:
        return entries
    most = _BLOCKS_AN_ENTRY * len(entries)
    if not 0 < len(txn.keys(tables.NAMES, *bounds, most + 1)) <= most:
        return entries
    blocks = txn.entries(tables.NAMES, *bounds)
    firsts = [first_of(payload) for _, payload in blocks]
    written: list[tuple[bytes, bytes]] = []
    left: list[Entry] = []
    at = 0
    while at < len(entries):
        place = max(bisect_right(firsts, entries[at]) - 1, 0)
        stop = len(entries)
        if place + 1 < len(firsts):
            stop = bisect_left(entries, firsts[place + 1], at)
        key, payload = blocks[place]
        made = joined(payload, entries[at:stop])
        if made is None:
            left += entries[at:stop]
        else:
            written.append((key, made))
        at = stop
    txn.put_many(tables.NAMES, written)
    for key, _ in written:
        txn.moved_block(key)
    return left
