"""Many strings entered at once into the sorted blocks of ``strings``.

Where a batch has entries for a good part of a field's blocks, all of them are read in one scan, and
those that get any are written together. Entries that change more than their block (it is full, or
has more in common than they) are handed back: ``strings`` enters them one after the other.
"""

from __future__ import annotations

from memdb.storage import tables
from memdb.storage.environment import WriteTxn
from memdb.storage.kernels import KERNELS
from memdb.storage.reference import Text

_MANY = 64
_BLOCKS_AN_ENTRY = 4  # more blocks than so many times the entries are not all read


def enter(txn: WriteTxn, bounds: tuple[bytes, bytes], entries: list[Text]) -> list[Text]:
    """Enter (text, row) pairs, ascending, into a field's blocks; returns those that are left.

    ``bounds``: the field's keys.
    """
    if len(entries) < _MANY:
        return entries
    most = _BLOCKS_AN_ENTRY * len(entries)
    if not 0 < len(txn.keys(tables.NAMES, *bounds, most + 1)) <= most:
        return entries
    written, left = KERNELS.join_blocks(txn.entries(tables.NAMES, *bounds), entries)
    txn.put_many(tables.NAMES, written)
    for key, _ in written:
        txn.moved_block(key)
    return left
