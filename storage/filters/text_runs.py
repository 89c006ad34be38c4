"""What is remembered of a field's strings: its blocks, and the rows of runs of neighbouring ones.

A block is one of LMDB's pages, and to visit hundreds of pages, each with its checksum, is most of
what a wide range over strings costs. So readers share what they read (``ReadTxn.scratch``), and of
``RUN_BLOCKS`` neighbours together one set of rows.

It is true of one snapshot, that of a ``content_seq``. A later snapshot catches up by the change
log, which names each block that was written: the runs those belong to are read again, and all
others are the same. A snapshot the log does not lead to (an older one, one after a large batch)
reads the field anew. Nothing of it is stored, so no write is dearer for it. This file does not
know what is looked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from memdb.storage import tables
from memdb.storage.changes import changes_since
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters.bitmaps import row_array, row_bytes
from memdb.storage.filters.strings import MANY, Entry, block_key, decode_block, first_entry

RUN_BLOCKS = 8
_BLOCKS_MAX = 1 << 13  # a field of more, over a million strings, is not remembered
_BYTES_MAX = 16 << 20  # of all fields together
_CHANGES_MAX = 64  # to catch up with more costs more than to begin anew
_MANY_BYTES = b"\xff\xff\xff\xff"
_SCRATCH: Final = "runs of strings"

Slice = tuple[
    bytes, int, int
]  # a block's payload, the first entry of it and the one after the last


class Run:
    """Neighbouring blocks, which never change. What is derived of them is entered when asked for,
    by any thread, and is the same whoever enters it."""

    __slots__ = ("_content", "_firsts", "blocks")

    def __init__(self, blocks: list[bytes]) -> None:
        self.blocks = blocks
        self._content: tuple[bytes, list[bytes]] | None = None
        self._firsts: dict[int, Entry] = {}

    def first(self, block: int) -> Entry:
        """The first entry of a block."""
        found = self._firsts.get(block)
        if found is None:
            found = self._firsts[block] = first_entry(self.blocks[block])
        return found

    def content(self) -> tuple[bytes, list[bytes]]:
        """The packed rows of strings with few rows, and the texts of strings with many."""
        found = self._content
        if found is None:
            packed, many = rows_and_texts([whole(payload) for payload in self.blocks])
            found = self._content = b"".join(packed), many
        return found


class Runs:
    """The runs of one field in one snapshot; run i has the labels from ``starts[i]`` to the next.

    ``before[i]`` blocks lie before run i. Never changed: the next snapshot has its own, which
    shares those runs that are the same.
    """

    __slots__ = ("before", "runs", "sequence", "size", "starts")

    def __init__(self, sequence: int, starts: Sequence[int], runs: list[Run]) -> None:
        self.sequence = sequence
        self.starts = [0, *starts[1:]] if starts else []
        self.runs = runs
        self.before = list(accumulate((len(run.blocks) for run in runs), initial=0))
        self.size = 2048 * self.before[-1]

    def place(self, entry: Entry) -> int:
        """Number of the last block that begins at or before ``entry``; 0 if none does."""
        number = max(bisect_right(self.runs, entry, key=lambda run: run.first(0)) - 1, 0)
        run = self.runs[number]
        within = bisect_right(range(len(run.blocks)), entry, key=run.first)
        return self.before[number] + max(within - 1, 0)

    def block(self, number: int) -> bytes:
        at = bisect_right(self.before, number) - 1
        return self.runs[at].blocks[number - self.before[at]]


def remembered(txn: ReadTxn, field: int) -> Runs | None:
    """The runs of this very snapshot, if they are known or few changes away."""
    sequence = _sequence(txn)
    known = _shared(txn).get(field)
    if known is None or sequence is None or known.sequence == sequence:
        return None if sequence is None else known
    if not 0 < sequence - known.sequence <= _CHANGES_MAX:
        return None
    change = changes_since(txn, known.sequence, sequence)
    if change is None or not change.blocks_known:
        return None
    start, stop = block_key(field, 0), block_key(field + 1, 0)
    moved = [int.from_bytes(key[2:], "big") for key in change.blocks if start <= key < stop]
    runs = _caught_up(txn, field, known, sequence, moved)
    _remember(txn, field, runs)
    return runs


def loaded(txn: ReadTxn, field: int) -> Runs | None:
    """All runs of a field, remembered; None for a field too large, or a snapshot nobody shares."""
    sequence = _sequence(txn)
    if sequence is None or field in _too_large(txn):
        return None
    start, stop = block_key(field, 0), block_key(field + 1, 0)
    entries = txn.entries(tables.NAMES, start, stop, _BLOCKS_MAX + 1)
    if len(entries) > _BLOCKS_MAX:
        _too_large(txn).add(field)
        return None
    runs = Runs(sequence, *_cut(entries))
    _remember(txn, field, runs)
    return runs


def whole(payload: bytes) -> Slice:
    """All of a block."""
    return payload, 0, int.from_bytes(payload[:2], "little")


def rows_and_texts(slices: Sequence[Slice]) -> tuple[list[bytes], list[bytes]]:
    """The packed rows of strings with few rows, and the texts of strings with many."""
    packed = [payload[2 + 4 * begin : 2 + 4 * finish] for payload, begin, finish in slices]
    many: list[bytes] = []
    for number, (payload, begin, finish) in enumerate(slices):
        if _MANY_BYTES in packed[number]:
            packed[number] = row_bytes(row for row in row_array(packed[number]) if row != MANY)
            many += [text for text, row in decode_block(payload)[begin:finish] if row == MANY]
    return packed, many


# --- from snapshot to snapshot --------------------------------------------------------------


def _sequence(txn: ReadTxn) -> int | None:
    """The snapshot's ``content_seq``; None for a writer, whose state nobody else may see."""
    state: Any = None if isinstance(txn, WriteTxn) else getattr(txn, "state", None)
    return None if state is None else int(state.content_seq)


def _shared(txn: ReadTxn) -> dict[int, Runs]:
    found: dict[int, Runs] = txn.scratch.setdefault(_SCRATCH, {})
    return found


def _too_large(txn: ReadTxn) -> set[int]:
    found: set[int] = txn.scratch.setdefault(_SCRATCH + ", not", set())
    return found


def _remember(txn: ReadTxn, field: int, runs: Runs) -> None:
    """Share it, unless a later one is, and let go of those that have not changed for longest."""
    shared = _shared(txn)
    known = shared.pop(field, None)
    shared[field] = runs if known is None or known.sequence <= runs.sequence else known
    others = list(shared.items())
    left = sum(one.size for _, one in others)
    for number, one in others[:-1]:
        if left <= _BYTES_MAX:
            break
        shared.pop(number, None)
        left -= one.size


def _caught_up(txn: ReadTxn, field: int, known: Runs, sequence: int, moved: Sequence[int]) -> Runs:
    """The same runs in a later snapshot, in which the blocks ``moved`` are others, or none."""
    starts, runs = list(known.starts or [0]), list(known.runs or [Run([])])
    stale = {bisect_right(starts, label) - 1 for label in moved}
    for i in sorted(stale, reverse=True):
        start = block_key(field, starts[i])
        after = block_key(field, starts[i + 1]) if i + 1 < len(starts) else block_key(field + 1, 0)
        labels, pieces = _cut(txn.entries(tables.NAMES, start, after))
        starts[i : i + 1] = [starts[i], *labels[1:]][: len(labels)]
        runs[i : i + 1] = pieces
    filled = bool(runs) and bool(runs[0].blocks)
    return Runs(sequence, starts if filled else [], runs if filled else [])


def _cut(entries: Sequence[tuple[bytes, bytes]]) -> tuple[list[int], list[Run]]:
    """Blocks in runs with their first labels; a run that grew is kept until it is twice as long."""
    size = RUN_BLOCKS if len(entries) >= 2 * RUN_BLOCKS else max(1, len(entries))
    places = range(0, len(entries), size)
    return (
        [int.from_bytes(entries[at][0][2:], "big") for at in places],
        [Run([payload for _, payload in entries[at : at + size]]) for at in places],
    )
