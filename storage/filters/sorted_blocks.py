"""Many entries entered at once into the packed sorted blocks of ``ordered``.

All blocks that get any are read, merged with the entries by numpy as one long block, and written:
one pass, however many blocks, with little Python for each. What a block is, is said in
``ordered``, which also enters single entries. This file writes blocks and no radix sets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memdb.storage.environment import WriteTxn

_KEY = np.dtype([("field", ">u2"), ("key", ">u8"), ("row", ">u4")])
_ENTRY_BYTES = 12
_FIELD_BYTES = 2

Block = tuple[bytes, bytes]  # (key, payload)


def enter(
    txn: WriteTxn, table: str, field: int, entries: Sequence[tuple[int, int]], full: int
) -> None:
    """Enter distinct (key, row) pairs in ascending order; blocks hold up to ``full`` entries."""
    keys = np.array([key for key, _ in entries], np.uint64)
    rows = np.array([row for _, row in entries], np.uint32)
    names = _names(field, keys, rows)
    blocks, bounds = _blocks_for(txn, table, names)
    if not blocks:
        size = min(full, len(names))
        cuts = np.append(np.arange(0, len(names), size), len(names))
        txn.put_many(table, _packed(field, keys, rows, cuts))
        return
    counts = np.array([len(payload) // _ENTRY_BYTES for _, payload in blocks])
    old_keys = np.frombuffer(b"".join([p[: 8 * n] for n, (_, p) in _each(counts, blocks)]), "<u8")
    old_rows = np.frombuffer(b"".join([p[8 * n :] for n, (_, p) in _each(counts, blocks)]), "<u4")
    starts = np.concatenate(([0], np.cumsum(counts)))
    owner = np.repeat(np.arange(len(blocks)), np.diff(bounds))
    place, new = _places(old_keys, old_rows, keys, rows)
    place, keys, rows, owner = place[new], keys[new], rows[new], owner[new]
    added = np.bincount(owner, minlength=len(blocks))
    first_new = np.concatenate(([0], np.cumsum(added)))[:-1]
    # Entries mostly ascend: full blocks stay full then; otherwise a split leaves room.
    at_end = np.zeros(len(blocks), np.bool_)
    got = np.flatnonzero(added)
    at_end[got] = place[first_new[got]] == starts[1:][got]
    merged_keys = np.insert(old_keys, place, keys)
    merged_rows = np.insert(old_rows, place, rows)
    cuts = _cuts(counts + added, at_end, full)
    pairs = _packed(field, merged_keys, merged_rows, cuts)
    written = {key for key, _ in pairs}
    for key, _ in blocks:  # an entry before the first one of the field gives its block a new key
        if key not in written:
            txn.delete(table, key)
    txn.put_many(table, pairs)


def _each(counts: NDArray[np.int64], blocks: list[Block]) -> list[tuple[int, Block]]:
    return list(zip(counts.tolist(), blocks, strict=True))


def _names(field: int, keys: NDArray[np.uint64], rows: NDArray[np.uint32]) -> list[bytes]:
    """The key that a block beginning with each entry would have."""
    found = np.empty(len(keys), _KEY)
    found["field"], found["key"], found["row"] = field, keys, rows
    packed, size = found.tobytes(), _KEY.itemsize
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def _blocks_for(txn: WriteTxn, table: str, names: list[bytes]) -> tuple[list[Block], list[int]]:
    """The blocks that entries belong in, and where each one's begin: ``names[b[i]:b[i + 1]]``."""
    blocks: list[Block] = []
    bounds = [0]
    at = 0
    while at < len(names):
        (found,) = txn.floors(table, [names[at]], _FIELD_BYTES)
        if found is None:  # before the field's first block, which takes it then
            first = next(txn.scan_keys(table, names[0]), b"")
            if first[:_FIELD_BYTES] != names[0][:_FIELD_BYTES]:
                return [], []
            (found,) = txn.floors(table, [first], _FIELD_BYTES)
        if found is not None:
            key, payload, following = found
            blocks.append((key, payload))
            at = bisect_left(names, following, at + 1) if following else len(names)
        bounds.append(at)
    return blocks, bounds


def _places(
    old_keys: NDArray[np.uint64],
    old_rows: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    rows: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Before which old entry each goes, and whether it is new; both sides ascend by (key, row)."""
    low = np.searchsorted(old_keys, keys, "left")
    place = np.searchsorted(old_keys, keys, "right")
    new = np.ones(len(keys), np.bool_)
    among = np.flatnonzero(low < place)
    among = among[old_rows[place[among] - 1] >= rows[among]]  # not after all of its equals
    for i in among.tolist():
        at = int(low[i]) + int(np.searchsorted(old_rows[low[i] : place[i]], rows[i]))
        new[i] = old_rows[at] != rows[i]
        place[i] = at
    return place, new


def _cuts(counts: NDArray[np.int64], at_end: NDArray[np.bool_], full: int) -> NDArray[np.int64]:
    """Where blocks of these sizes are cut, as bounds in the merged entries."""
    pieces = -(-counts // full)
    size = np.where(at_end, full, -(-counts // np.maximum(pieces, 1)))
    starts = np.cumsum(counts) - counts
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    found = np.repeat(starts, pieces) + within * np.repeat(size, pieces)
    return np.append(found, counts.sum())


def _packed(
    field: int, keys: NDArray[np.uint64], rows: NDArray[np.uint32], cuts: NDArray[np.int64]
) -> list[Block]:
    """(key, payload) of the entries between neighbouring cuts."""
    names = _names(field, keys[cuts[:-1]], rows[cuts[:-1]])
    key_bytes, row_bytes = keys.astype("<u8").tobytes(), rows.astype("<u4").tobytes()
    bounds = cuts.tolist()
    return [
        (name, key_bytes[8 * a : 8 * b] + row_bytes[4 * a : 4 * b])
        for name, a, b in zip(names, bounds, bounds[1:], strict=False)
    ]
