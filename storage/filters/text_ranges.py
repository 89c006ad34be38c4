"""Ranges of strings: the rows between two texts, from the blocks that ``strings`` keeps in order.

A range over few blocks reads them. A range over many is what lies inside of the two blocks at its
edges and, between them, blocks that lie inside wholly, of which ``text_runs`` remembers the rows.
Where less lies outside than inside, and the caller can use it, that is what is found. This file
knows fields by number and texts as bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.filters import text_runs
from memdb.storage.filters.bitmaps import union_of_blocks
from memdb.storage.filters.strings import Labels, block_key, count_below
from memdb.storage.filters.text_runs import Runs, Slice, rows_and_texts, whole

MANY_BLOCKS = 128  # a range over fewer blocks does not make anybody read the whole field


class Found(NamedTuple):
    """The rows in a range of strings, or with ``outside`` those the field has besides.

    ``rows`` of strings with few rows; the texts of strings with many.
    """

    rows: BitMap
    many: list[bytes]
    outside: bool = False


def find(
    txn: ReadTxn, field: int, low: bytes, high: bytes | None, *, or_outside: bool = False
) -> Found:
    """What lies at low <= text < high (None: no upper bound).

    With ``or_outside`` what does not, if the field has many blocks and that is less to read.
    """
    runs = text_runs.remembered(txn, field)
    if runs is not None:
        return _Search(runs).find(low, high, or_outside=or_outside)
    labels = Labels(txn, field, listed=False)
    start = labels.locate((low, 0))
    end = None if high is None else labels.locate((high, 0))
    if start is None:
        return Found(BitMap(), [])
    begin = block_key(field, start)
    stop = block_key(field + 1, 0) if end is None else block_key(field, end + 1)
    if len(txn.keys(tables.NAMES, begin, stop, MANY_BLOCKS)) == MANY_BLOCKS:
        runs = text_runs.loaded(txn, field)
        if runs is not None:
            return _Search(runs).find(low, high, or_outside=or_outside)
        if or_outside and _is_most(txn, field, begin, stop):
            slices = _read(txn, block_key(field, 0), block_key(field, start + 1), b"", low)
            if end is not None:
                slices += _read(txn, block_key(field, end), block_key(field + 1, 0), high, None)
            return _gathered(slices, outside=True)
    return _gathered(_read(txn, begin, stop, low, high), outside=False)


def _is_most(txn: ReadTxn, field: int, begin: bytes, stop: bytes) -> bool:
    keys = txn.keys(tables.NAMES, block_key(field, 0), block_key(field + 1, 0))
    return 2 * (bisect_left(keys, stop) - bisect_left(keys, begin)) > len(keys)


def _read(
    txn: ReadTxn, begin: bytes, stop: bytes, low: bytes | None, high: bytes | None
) -> list[Slice]:
    """What lies at low <= text < high in blocks of which all but the outer ones lie inside."""
    slices = [whole(payload) for _, payload in txn.entries(tables.NAMES, begin, stop)]
    if slices and high is not None:
        slices[-1] = _cut(slices[-1], None, high)
    if slices and low:
        slices[0] = _cut(slices[0], low, None)
    return slices


def _cut(part: Slice, low: bytes | None, high: bytes | None) -> Slice:
    payload, begin, finish = part
    return (
        payload,
        count_below(payload, low) if low else begin,
        finish if high is None else count_below(payload, high),
    )


def _gathered(slices: list[Slice], *, outside: bool) -> Found:
    packed, many = rows_and_texts(slices)
    return Found(union_of_blocks([], packed), many, outside)


class _Search:
    """One range among remembered runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._slices: list[Slice] = []
        self._packed: list[bytes] = []
        self._many: list[bytes] = []

    def find(self, low: bytes, high: bytes | None, *, or_outside: bool) -> Found:
        count = self._runs.before[-1]
        if not count:
            return Found(BitMap(), [])
        begin = self._runs.place((low, 0)) if low else 0
        end = count if high is None else self._runs.place((high, 0))
        outside = or_outside and 2 * (end - begin) > count
        if outside:
            self._between(0, begin, None, low)
            if high is not None:
                self._between(end, count, high, None)
        else:
            self._between(begin, end, low, high)
        packed, many = rows_and_texts(self._slices)
        rows = union_of_blocks([], self._packed + packed)
        return Found(rows, self._many + many, outside)

    def _between(self, begin: int, end: int, low: bytes | None, high: bytes | None) -> None:
        """What lies at low <= text < high: ``low`` in block ``begin``, ``high`` in block ``end``.

        Without ``high`` all blocks up to ``end``, and not that.
        """
        block = self._runs.block
        if begin == end and high is not None:
            self._slices.append(_cut(whole(block(end)), low, high))
        if begin >= end:
            return
        if high is not None:
            self._slices.append(_cut(whole(block(end)), None, high))
        if low:
            self._slices.append(_cut(whole(block(begin)), low, None))
            begin += 1
        before = self._runs.before
        at = bisect_right(before, begin) - 1
        while begin < end:
            run = self._runs.runs[at]
            blocks = run.blocks[begin - before[at] : end - before[at]]
            if len(blocks) < len(run.blocks):
                self._slices += [whole(payload) for payload in blocks]
            else:
                packed, many = run.content()
                self._packed.append(packed)
                self._many += many
            begin += len(blocks)
            at += 1
