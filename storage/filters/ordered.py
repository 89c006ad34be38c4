"""Numbers and times in order: packed sorted blocks of (key, row), and radix bitmaps above them.

    table key     := field u16 | first entry's key u64 | its row u32
    table payload := n keys u64 LE | n rows u32 LE                       1 <= n <= 150
                   | packed, by a packing copy (``packed_blocks``)       1 <= n <= 256
    radix set     := bitmaps prefix  field u16 | level u8 | key >> shift, 7 bytes

A key is any value mapped to an unsigned 64-bit integer of the same order: a time biased by 2^63, a
number by the bits of its float64. A range is two edges read from the blocks and, between them,
unions of radix sets at growing units, so that its cost hardly grows with its width. For times the
units are 38 hours and 51 days (measured: coarser and finer ones cost a durable write more than
they gave a range, at ten years of memories); for numbers 1/32 of a power of two, and a power of
two. This file knows no field names and no operators.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import bitmaps, packed_blocks, sorted_blocks
from memdb.storage.filters.packed_blocks import Columns
from memdb.storage.kernels import KERNELS
from memdb.storage.reference import Entry, RowSet

BLOCK_ENTRIES = 150
KEY_END = 1 << 64
_TIME_BIAS = 1 << 63
_DIRECT_BLOCKS = 8
_FIRST_LEVEL = 0x10  # the byte after the field: under it special sets, from 0x80 hashes of text
_DOUBLE = struct.Struct(">d")
_UNSIGNED = struct.Struct(">Q")


def time_key(micros: int) -> int:
    """Microseconds UTC, which fit an int64, as an ordered key."""
    return micros + _TIME_BIAS


def key_time(key: int) -> int:
    return key - _TIME_BIAS


def keys_times(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``key_time`` of each."""
    return (keys ^ np.uint64(_TIME_BIAS)).view(np.int64)


def number_key(number: float) -> int:
    """A finite number as an ordered key; 2 and 2.0, and 0.0 and -0.0, have the same."""
    bits: int = _UNSIGNED.unpack(_DOUBLE.pack(float(number) + 0.0))[0]
    return bits ^ (KEY_END - 1) if bits >> 63 else bits | _TIME_BIAS


def number_keys(numbers: Sequence[float]) -> list[int]:
    """``number_key`` of each."""
    bits = (np.array(numbers, np.float64) + 0.0).view(np.uint64)
    keys = np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(_TIME_BIAS))
    found: list[int] = keys.tolist()
    return found


def key_number(key: int) -> float:
    bits = key & (_TIME_BIAS - 1) if key >> 63 else key ^ (KEY_END - 1)
    number: float = _DOUBLE.unpack(_UNSIGNED.pack(bits))[0]
    return number


class OrderedIndex:
    """One table of ordered entries. Stateless: every call takes its transaction."""

    def __init__(self, table: str, *shifts: int) -> None:
        self._table = table
        self._shifts = list(shifts)

    # --- writing ---------------------------------------------------------------------------

    def add(self, txn: WriteTxn, field: int, entries: list[Entry]) -> None:
        """Enter (key, row) pairs, in any order; those already there stay once."""
        sorted_blocks.enter(txn, self._table, field, entries, BLOCK_ENTRIES)
        bitmaps.add_many(txn, self._radix(field, entries))

    def remove(self, txn: WriteTxn, field: int, entries: Sequence[Entry]) -> None:
        """Take (key, row) pairs out; those not there are passed over."""
        ordered = sorted(set(entries))
        removed = [entry for entry in ordered if self._remove_one(txn, field, entry)]
        for prefix, rows in self._radix(field, removed):
            bitmaps.discard_rows(txn, prefix, rows)

    def _radix(self, field: int, entries: list[Entry]) -> list[RowSet]:
        return KERNELS.radix_sets(field, self._shifts, _FIRST_LEVEL, entries)

    def _remove_one(self, txn: WriteTxn, field: int, entry: Entry) -> bool:
        found = self._block_of(txn, field, *entry)
        if found is None:
            return False
        keys, rows = _unpack(found[1])
        i = _position(keys, rows, *entry)
        if i == len(keys) or (keys[i], rows[i]) != entry:
            return False
        del keys[i], rows[i]
        if i == 0:  # its value was in the block's key
            txn.delete(self._table, found[0])
        if keys:
            packed = packed_blocks.is_packed(found[1])
            payload = _pack_again(keys, rows) if packed else _pack(keys, rows)
            txn.put(self._table, _block_key(field, keys[0], rows[0]), payload)
        return True

    # --- reading ---------------------------------------------------------------------------

    def rows(self, txn: ReadTxn, field: int, low: int, high: int) -> BitMap:
        """Rows with low <= key < high."""
        low, high = max(low, 0), min(high, KEY_END)
        if low >= high:
            return BitMap()
        start, stop = self._start(txn, field, low), _bound(field, high)
        near = txn.keys(self._table, start, stop, _DIRECT_BLOCKS + 1)
        if not near:
            return BitMap()
        packed: list[bytes] = []
        sets: list[tuple[bytes, bytes]] = []
        level = -1
        for shift in self._shifts if len(near) > _DIRECT_BLOCKS else ():
            inner_low, inner_high = -(-low >> shift) << shift, high >> shift << shift
            if inner_low >= inner_high:
                break
            for first, last in ((low, inner_low), (inner_high, high)):
                if level < 0:
                    packed += self._edge(txn, field, first, last, start if first == low else None)
                else:
                    sets += self._sets(txn, field, level, first, last)
            low, high = inner_low, inner_high
            level += 1
        if level < 0:
            packed += self._edge(txn, field, low, high, start)
        else:
            sets += self._sets(txn, field, level, low, high)
        return bitmaps.union_of_blocks(sets, packed)

    def _sets(
        self, txn: ReadTxn, field: int, level: int, low: int, high: int
    ) -> list[tuple[bytes, bytes]]:
        """The blocks of the radix sets that make up low <= key < high."""
        if low >= high:
            return []
        shift = self._shifts[level]
        head = field.to_bytes(2, "big") + bytes((_FIRST_LEVEL + level,))
        start, stop = ((key >> shift).to_bytes(7, "big") for key in (low, high))
        return bitmaps.blocks_between(txn, head + start, head + stop)

    def _edge(
        self, txn: ReadTxn, field: int, low: int, high: int, start: bytes | None
    ) -> list[bytes]:
        """Packed rows with low <= key < high, read from the entries themselves."""
        if low >= high:
            return []
        if start is None:
            start = self._start(txn, field, low)
        blocks = txn.entries(self._table, start, _bound(field, high))
        # Every block but the last ends before the last begins, hence below ``high``.
        parts = []
        for number, (_, payload) in enumerate(blocks):
            payload = packed_blocks.plain(payload)
            count = len(payload) // 12
            if number in (0, len(blocks) - 1):
                keys, _ = _unpack(payload)
                first, last = bisect_left(keys, low), bisect_left(keys, high)
                parts.append(payload[8 * count + 4 * first : 8 * count + 4 * last])
            else:
                parts.append(payload[8 * count :])
        return parts

    def scan(
        self, txn: ReadTxn, field: int, low: int, high: int, *, reverse: bool = False
    ) -> Iterator[Entry]:
        """(key, row) with low <= key < high, in order of both or reversed."""
        low, high = max(low, 0), min(high, KEY_END)
        if low >= high:
            return
        start = self._start(txn, field, low)
        for _, payload in txn.scan(self._table, start, _bound(field, high), reverse=reverse):
            keys, rows = _unpack(payload)
            entries = range(bisect_left(keys, low), bisect_left(keys, high))
            for i in reversed(entries) if reverse else entries:
                yield keys[i], rows[i]

    def blocks(
        self, txn: ReadTxn, field: int, low: int, high: int, *, reverse: bool = False
    ) -> Iterator[Columns]:
        """What ``scan`` gives, a block at a time: keys (n,) and rows (n,), n >= 1."""
        low, high = max(low, 0), min(high, KEY_END)
        if low >= high:
            return
        start = self._start(txn, field, low)
        for _, payload in txn.scan(self._table, start, _bound(field, high), reverse=reverse):
            keys, rows = packed_blocks.columns(payload)
            count = len(keys)
            first = int(np.searchsorted(keys, np.uint64(low)))
            last = count if high == KEY_END else int(np.searchsorted(keys, np.uint64(high)))
            if first < last:
                step = -1 if reverse else 1
                yield keys[first:last][::step], rows[first:last][::step]

    def bounds(self, txn: ReadTxn, field: int) -> tuple[int, int] | None:
        """Two keys near the least and the greatest of a field; for estimates."""
        start, stop = _bound(field, 0), _bound(field + 1, 0)
        first = txn.first_key(self._table, start, stop)
        last = txn.last_key(self._table, start, stop)
        if first is None or last is None:
            return None
        return int.from_bytes(first[2:10], "big"), int.from_bytes(last[2:10], "big")

    def extent(self, txn: ReadTxn, field: int) -> tuple[int, int] | None:
        """The least and the greatest key of a field."""
        found = txn.floor(self._table, _bound(field + 1, 0)[:-1])
        if found is None or found[0][:2] != field.to_bytes(2, "big"):
            return None
        first = txn.first_key(self._table, _bound(field, 0), found[0]) or found[0]
        return int.from_bytes(first[2:10], "big"), _unpack(found[1])[0][-1]

    def is_empty(self, txn: ReadTxn, field: int) -> bool:
        return txn.first_key(self._table, _bound(field, 0), _bound(field + 1, 0)) is None

    def _start(self, txn: ReadTxn, field: int, low: int) -> bytes:
        """The key of the block that holds the first entry >= ``low``, or a bound before it."""
        start = _bound(field, low)
        before = txn.last_key(self._table, _bound(field, 0), start)
        return start if before is None else before

    def _block_of(self, txn: ReadTxn, field: int, key: int, row: int) -> tuple[bytes, bytes] | None:
        """The block an entry belongs in; None when the field has none."""
        found = txn.floor(self._table, _block_key(field, key, row))
        if found is not None and found[0][:2] == field.to_bytes(2, "big"):
            return found
        return next(txn.scan(self._table, _bound(field, 0), _bound(field + 1, 0)), None)


NUMBERS = OrderedIndex(tables.NUMBERS, 47, 52)
PLAIN_NUMBERS = OrderedIndex(tables.NUMBERS)  # few distinct values, or seldom asked for
TIMES = OrderedIndex(tables.TIMES, 37, 42)


def _block_key(field: int, key: int, row: int) -> bytes:
    return b"".join((field.to_bytes(2, "big"), key.to_bytes(8, "big"), row.to_bytes(4, "big")))


def _bound(field: int, key: int) -> bytes:
    """Before every entry of ``key`` or more; ``KEY_END`` is past the field's last."""
    if key >= KEY_END:
        return _bound(field + 1, 0)
    if field > 0xFFFF:
        return b"\xff" * 15
    return _block_key(field, key, 0)


def _position(keys: array[int], rows: array[int], key: int, row: int) -> int:
    i = bisect_left(keys, key)
    return bisect_left(rows, row, i, bisect_right(keys, key, i)) if i < len(keys) else i


def _pack(keys: array[int], rows: array[int]) -> bytes:
    if sys.byteorder == "big":
        keys = keys[:]
        keys.byteswap()
    return keys.tobytes() + bitmaps.row_bytes(rows)


def _pack_again(keys: array[int], rows: array[int]) -> bytes:
    """What is left of a packed block; plain once that is no more than its packed form."""
    payload = packed_blocks.encode(np.array(keys, np.uint64), np.array(rows, np.uint32))
    small = packed_blocks.ENTRY_BYTES * len(keys) < len(payload)
    return _pack(keys, rows) if small else payload


def _unpack(payload: bytes) -> tuple[array[int], array[int]]:
    payload = packed_blocks.plain(payload)
    count = len(payload) // 12
    keys = array("Q", payload[: 8 * count])
    if sys.byteorder == "big":
        keys.byteswap()
    return keys, bitmaps.row_array(payload[8 * count :])
