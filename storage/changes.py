"""The change log: which rows each ``content_seq`` made visible or invisible, and what it moved.

Caches in this and other processes (live slots, fresh vectors, runs of strings) catch up by
replaying it instead of reading the store again. It is derived data: a cache further behind than the
log reaches is rebuilt. It knows neither records nor vectors.

    change := added's size u32 LE | added | removed [ "B" | key of a block of strings 10 x n ]
            | "*"                               too large to keep

``added`` and ``removed`` are roaring. Without the "B" it is not known which blocks were written:
there were too many, or an earlier version wrote the change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

if TYPE_CHECKING:
    from memdb.storage.environment import ReadTxn, WriteTxn

KEPT = 4_096
_TOO_LARGE = b"*"
_BLOCKS = b"B"
_BLOCK_KEY_BYTES = 10
_SCRATCH = "changes"
_RECENT_MAX = 256


class Change:
    """Rows that appeared and rows that went, and blocks of strings written, in one operation."""

    __slots__ = ("added", "blocks", "blocks_known", "removed", "samples")

    def __init__(self) -> None:
        self.added = BitMap()
        self.removed = BitMap()
        self.blocks: set[bytes] = set()
        self.blocks_known = True
        self.samples = False  # samples have no rows: nothing that a cache of rows must know

    def note(self, added: Iterable[int], removed: Iterable[int]) -> None:
        added, removed = BitMap(added), BitMap(removed)
        self.added = (self.added | added) - removed
        self.removed = (self.removed | removed) - added

    def __bool__(self) -> bool:
        return bool(self.added) or bool(self.removed) or bool(self.blocks) or self.samples

    def pack(self) -> bytes:
        added, removed = (_pack(rows) for rows in (self.added, self.removed))
        packed = len(added).to_bytes(4, "little") + added + removed
        if len(packed) > SMALL_PAYLOAD_MAX_BYTES:
            return _TOO_LARGE
        if len(packed) + 1 + _BLOCK_KEY_BYTES * len(self.blocks) > SMALL_PAYLOAD_MAX_BYTES:
            return packed
        return packed + _BLOCKS + b"".join(self.blocks)

    @classmethod
    def unpack(cls, payload: bytes) -> Change | None:
        """None when the change was too large to keep row by row."""
        if payload == _TOO_LARGE:
            return None
        cut = 4 + int.from_bytes(payload[:4], "little")
        change = cls()
        change.added = BitMap.deserialize(payload[4:cut])
        change.removed = BitMap.deserialize(payload[cut:])
        keys = payload[cut + len(change.removed.serialize()) :]
        change.blocks_known = keys[:1] == _BLOCKS
        size = _BLOCK_KEY_BYTES
        change.blocks = {keys[at : at + size] for at in range(1, len(keys), size)}
        return change


def _pack(rows: BitMap) -> bytes:
    rows.run_optimize()
    return bytes(rows.serialize())


def _key(sequence: int) -> bytes:
    return sequence.to_bytes(8, "big")


def record_change(txn: WriteTxn, sequence: int, change: Change) -> None:
    """Log one change and drop the one that fell off the end."""
    txn.put(tables.CHANGES, _key(sequence), change.pack())
    if sequence > KEPT:
        txn.delete(tables.CHANGES, _key(sequence - KEPT))


def changes_since(txn: ReadTxn, after: int, until: int) -> Change | None:
    """Everything with after < content_seq <= until as one change; None: rebuild instead.

    It may be shared: nobody changes it.
    """
    merged = Change()
    recent = _recent(txn)
    for sequence in range(after + 1, until + 1):
        change = recent.get(sequence)
        if change is None:
            payload = txn.get(tables.CHANGES, _key(sequence))
            change = None if payload is None else Change.unpack(payload)
            if change is None:
                return None
            recent[sequence] = change
        if until == after + 1:
            return change
        merged.note(change.added - change.removed, change.removed)
        merged.blocks |= change.blocks
        merged.blocks_known = merged.blocks_known and change.blocks_known
    return merged


def _recent(txn: ReadTxn) -> dict[int, Change]:
    """Changes already decoded: several caches catch up by the same ones."""
    found: dict[int, Change] = txn.scratch.get(_SCRATCH, {})
    if len(found) > _RECENT_MAX or not found:
        found = txn.scratch[_SCRATCH] = {}
    return found
