"""Sets of rows in the ``bitmaps`` table: one value's set in blocks by first row.

    key    := prefix 10 | first row u32          a block runs to the prefix's next key
    block  := "A" | rows u32 LE, ascending       the set's only block, at most 8 rows
            | "R" | roaring, portable form       any span
            | "B" | bits, LE, zeros cut          one aligned chunk of 8,192 rows

A set that has rows has a block at first row 0, empty or not. A payload never exceeds 1,896 bytes,
so that no set costs pages of its own: roaring keeps a dense container as 8 KiB of bits, which is
why dense chunks are kept as bits here and glued back into containers on reading. This file knows
prefixes and rows, not fields or values.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.kernels import KERNELS
from memdb.storage.reference import RowSet
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

PREFIX_BYTES = 10
INLINE_MAX = 8
_CHUNK_ROWS = 1 << 13
_KEPT_MAX = 8  # blocks of one set that are joined as they are
_END = b"\xff\xff\xff\xff"


def row_array(payload: bytes) -> array[int]:
    """u32 little-endian bytes as an array."""
    rows = array("I", payload)
    if sys.byteorder == "big":
        rows.byteswap()
    return rows


def row_bytes(rows: Iterable[int]) -> bytes:
    """Rows as u32 little-endian bytes."""
    packed = array("I", rows)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def add_rows(txn: WriteTxn, prefix: bytes, rows: Sequence[int]) -> list[int] | None:
    """Add rows, any order. The set before: all its rows if it was inline or empty, else None."""
    fresh = sorted(set(rows)) if len(rows) > 1 else list(rows)
    found = txn.floor(tables.BITMAPS, prefix + fresh[0].to_bytes(4, "big"))
    if found is None or found[0][:-4] != prefix:
        _write_new(txn, prefix, fresh)
        return []
    if found[1][:1] == b"A":
        before = row_array(found[1][1:]).tolist()
        after = {*before, *fresh}
        if len(after) > len(before):
            _write_new(txn, prefix, sorted(after))
        return before
    if len(fresh) == 1:
        _add_to_block(txn, *found, fresh)
        return None
    at = 0
    while at < len(fresh):
        key, payload = found or _missing_block()
        following = next(txn.scan_keys(tables.BITMAPS, key + b"\0", prefix + _END), None)
        limit = 1 << 32 if following is None else int.from_bytes(following[-4:], "big")
        stop = bisect_left(fresh, limit, at)
        _add_to_block(txn, key, payload, fresh[at:stop])
        at = stop
        if at < len(fresh):
            found = txn.floor(tables.BITMAPS, prefix + fresh[at].to_bytes(4, "big"))
    return None


def add_many(txn: WriteTxn, sets: list[RowSet]) -> list[list[int] | None]:
    """``add_rows`` of many sets, in the order of their distinct prefixes: one cursor, one write."""
    before, pieces, spread = txn.extend_sets(tables.BITMAPS, sets)
    txn.put_many(tables.BITMAPS, pieces)
    for place in spread:  # over several blocks: few are
        add_rows(txn, *sets[place])
    return before


def _missing_block() -> NoReturn:
    raise StoreCorrupt("a set of rows lacks its first block", path="kv")


def _write_new(txn: WriteTxn, prefix: bytes, rows: list[int]) -> None:
    for key, payload in _new_pieces(prefix, rows):
        txn.put(tables.BITMAPS, key, payload)


def _new_pieces(prefix: bytes, rows: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """A whole set as (key, payload), whatever was there; rows ascend."""
    if len(rows) == 1:
        return [(prefix + bytes(4), b"A" + rows[0].to_bytes(4, "little"))]
    if len(rows) <= INLINE_MAX:
        return [(prefix + bytes(4), b"A" + row_bytes(rows))]
    return [(prefix + first.to_bytes(4, "big"), p) for first, p in _cut(bitmap_of(rows), 0)]


def _add_to_block(txn: WriteTxn, key: bytes, payload: bytes, rows: list[int]) -> None:
    for piece_key, piece in _pieces(key, payload, rows):
        txn.put(tables.BITMAPS, piece_key, piece)


def _pieces(key: bytes, payload: bytes, rows: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """A block with rows of its span added, as (key, payload)."""
    first = int.from_bytes(key[-4:], "big")
    if payload[:1] == b"B" and rows[-1] < first + _CHUNK_ROWS:
        bits = bytearray(payload[1:].ljust((rows[-1] - first >> 3) + 1, b"\0"))
        for row in rows:
            bits[row - first >> 3] |= 1 << (row & 7)
        return [(key, b"B" + bits)]
    block = BitMap.deserialize(payload[1:]) if payload[:1] == b"R" else _decode(payload, first)
    block.update(rows)
    head = key[:-4]
    return [(head + at.to_bytes(4, "big"), piece) for at, piece in _cut(block, first)]


def discard_rows(txn: WriteTxn, prefix: bytes, rows: Iterable[int]) -> tuple[list[int], bool]:
    """Remove rows. (the rows that were inline and are gone, whether no row is left)."""
    gone = bitmap_of(rows)
    inline: list[int] = []
    emptied: list[bytes] = []
    left = False
    for key, payload in list(txn.scan(tables.BITMAPS, prefix + bytes(4), prefix + _END)):
        first = int.from_bytes(key[-4:], "big")
        block = _decode(payload, first)
        kept = block - gone
        left = left or bool(kept)
        if not kept:
            emptied.append(key)
        if payload[:1] == b"A":
            inline = list(block & gone)
            if kept and inline:
                txn.put(tables.BITMAPS, key, b"A" + row_bytes(kept))
        elif kept and len(kept) < len(block):
            for piece_first, piece in _cut(kept, first):
                txn.put(tables.BITMAPS, key[:-4] + piece_first.to_bytes(4, "big"), piece)
    for key in emptied:
        if left and key[-4:] == bytes(4):  # a set that has rows has a block at row 0
            txn.put(tables.BITMAPS, key, b"R" + BitMap().serialize())
        else:
            txn.delete(tables.BITMAPS, key)
    return inline, not left


def exists(txn: ReadTxn, prefix: bytes) -> bool:
    """Whether the set has rows."""
    return txn.exists(tables.BITMAPS, prefix + bytes(4))


def contains(txn: ReadTxn, prefix: bytes, row: int) -> bool:
    """Whether a row is in the set stored under ``prefix``."""
    found = txn.floor(tables.BITMAPS, prefix + row.to_bytes(4, "big"))
    if found is None or found[0][:-4] != prefix:
        return False
    first, payload = int.from_bytes(found[0][-4:], "big"), found[1]
    if payload[:1] == b"B":
        at = 1 + (row - first >> 3)
        return at < len(payload) and bool(payload[at] >> (row & 7) & 1)
    return row in _decode(payload, first)


def load(txn: ReadTxn, prefix: bytes) -> BitMap:
    """The set stored under ``prefix``."""
    return load_range(txn, prefix + bytes(4), prefix + _END)


def load_range(txn: ReadTxn, start: bytes, stop: bytes) -> BitMap:
    """The union of all sets with start <= key < stop."""
    return union_of_blocks(blocks_between(txn, start, stop))


def blocks_between(txn: ReadTxn, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
    """The blocks with start <= key < stop, for ``union_of_blocks``."""
    return txn.entries(tables.BITMAPS, start, stop)


def union_of_blocks(blocks: list[tuple[bytes, bytes]], packed: Sequence[bytes] = ()) -> BitMap:
    """The union of stored blocks, each as (a key that ends in its first row, payload), and of
    lists of rows as u32 little-endian."""
    if not packed and all(payload[:1] == b"R" for _, payload in blocks):
        # As they are: they may have runs, which take less room than rows do.
        maps = [BitMap.deserialize(payload[1:]) for _, payload in blocks]
        if len(maps) <= _KEPT_MAX:
            return BitMap.union(*maps) if len(maps) > 1 else maps[0] if maps else BitMap()
    return BitMap.deserialize(KERNELS.union_rows(blocks, list(packed)))


def load_many(txn: ReadTxn, prefixes: Sequence[bytes]) -> BitMap:
    """The union of several sets. Sets that fit one block, most of them, are read together."""
    if len(prefixes) <= 4:
        blocks = []
        for prefix in prefixes:
            blocks += blocks_between(txn, prefix + bytes(4), prefix + _END)
        return union_of_blocks(blocks)
    keys = sorted(prefix + bytes(4) for prefix in prefixes)
    blocks = []
    for key, payload in txn.get_many(tables.BITMAPS, keys).items():
        blocks.append((key, payload))
        if payload[:1] == b"A":
            continue
        blocks += blocks_between(txn, key + b"\0", key[:-4] + _END)
    return union_of_blocks(blocks)


def bitmap_of(rows: Iterable[int]) -> BitMap:
    """Any rows as a bitmap of their own."""
    return rows.copy() if isinstance(rows, BitMap) else BitMap(array("I", rows))


def _decode(payload: bytes, first: int) -> BitMap:
    return union_of_blocks([(first.to_bytes(4, "big"), payload)]) if payload else BitMap()


def _cut(rows: BitMap, first: int) -> list[tuple[int, bytes]]:
    """Blocks for the rows of one block's span: (first row, payload), each within the limit."""
    rows.run_optimize()
    payload: bytes = b"R" + rows.serialize()
    if len(payload) <= SMALL_PAYLOAD_MAX_BYTES:
        return [(first, payload)]
    low, high = rows.min() // _CHUNK_ROWS, rows.max() // _CHUNK_ROWS
    if low == high:
        return _cut_chunk(rows, first, low * _CHUNK_ROWS)
    # Rows mostly come in ascending order: leave the last chunk alone and the rest full, if it is.
    head = BitMap(rows)
    head.remove_range(high * _CHUNK_ROWS, (high + 1) * _CHUNK_ROWS)
    head.run_optimize()
    boundary = high * _CHUNK_ROWS
    if 1 + len(head.serialize()) > SMALL_PAYLOAD_MAX_BYTES:
        middle = rows[len(rows) // 2] // _CHUNK_ROWS
        boundary = (middle if middle > low else middle + 1) * _CHUNK_ROWS
        head = BitMap(rows)
        head.remove_range(boundary, (high + 1) * _CHUNK_ROWS)
    return _cut(head, first) + _cut(rows - head, boundary)


def _cut_chunk(rows: BitMap, first: int, chunk: int) -> list[tuple[int, bytes]]:
    bits = np.zeros(_CHUNK_ROWS, np.uint8)
    bits[np.frombuffer(rows.to_array(), np.uint32) - np.uint32(chunk)] = 1
    payload = b"B" + np.packbits(bits, bitorder="little").tobytes().rstrip(b"\0")
    blocks = [(chunk, payload)]
    if first < chunk:  # the span before it is empty now, but its key must go on bounding it
        blocks.insert(0, (first, b"R" + BitMap().serialize()))
    return blocks
