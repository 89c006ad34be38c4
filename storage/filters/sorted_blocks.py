"""Entries entered into the packed sorted blocks of ``ordered``, which says what a block is.

All blocks that get any are read by one cursor, merged with the entries by compiled code, and
written together. This file writes blocks and no radix sets.
"""

from __future__ import annotations

from memdb.storage.environment import WriteTxn
from memdb.storage.filters import packed_blocks
from memdb.storage.kernels import KERNELS
from memdb.storage.reference import Entry


def enter(txn: WriteTxn, table: str, field: int, entries: list[Entry], full: int) -> None:
    """Enter (key, row) pairs, in any order; blocks hold up to ``full`` entries."""
    found, bounds = txn.blocks_for(table, field, entries)
    blocks = [(key, packed_blocks.plain(payload)) for key, payload in found]
    pairs, gone = KERNELS.merge_blocks(field, blocks, bounds, entries, full)
    for key in gone:  # an entry before the first one of the field gave its block a new key
        txn.delete(table, key)
    txn.put_many(table, pairs)
