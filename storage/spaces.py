"""Embedding spaces and the rows they own.

A row id is 32 bits. Ids are handed out in runs of 65,536 (one roaring container), and a run
belongs to one space, so that a row's vector slot is arithmetic::

    slot = rank(run) * 65,536 + (row & 0xFFFF)        rank: the run's place among its space's runs

and a bitmap of rows becomes a bitmap of slots by renumbering containers. Space 0 is the rows
without a vector. A space that takes another's place *shares* its runs: both have a slot for each
row, and only the first hands out the rows. This file knows which rows belong to which space; it
does not know vectors: the ``index`` field is an opaque mapping that the index understands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import settings
from memdb.errors import Conflict, StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.store import Writer

NO_VECTOR = 0
_RUN_BITS = 16
_ROWS, _ROWS_END = b"rows/", b"rows0"
_RUN = struct.Struct("<H")


class SpaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps of one space."""

    number: int
    name: str
    dim: int
    metric: Literal["cosine", "ip", "l2"]
    profile: Literal["exact", "standard", "compact", "nano", "pico"]
    embedder: dict[str, Any] | None = None
    index: dict[str, Any] = {}
    default: bool = False
    converting: Literal["exact", "standard", "compact", "nano", "pico"] | None = None
    """The profile that its files are being brought to."""
    filling: bool = False
    """It is being filled from texts, to take the default space's place."""


class Allocation(msgspec.Struct, frozen=True, array_like=True):
    """The runs of a space in rank order, and how much of the last one is used."""

    runs: tuple[int, ...] = ()
    used: int = 0

    @property
    def capacity(self) -> int:
        """One past the greatest slot handed out."""
        return max(0, len(self.runs) - 1) * settings.RUN_ROWS + self.used

    @property
    def rising(self) -> bool:
        """Whether slots are in the order of their rows."""
        return all(one < other for one, other in pairwise(self.runs))

    def slots(self, rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The slots of rows of this space; order is kept."""
        ranks = np.zeros(max(self.runs, default=0) + 1, dtype=np.uint32)
        ranks[list(self.runs)] = np.arange(len(self.runs), dtype=np.uint32)
        slots: NDArray[np.uint32] = (ranks[rows >> _RUN_BITS] << _RUN_BITS) | (rows & 0xFFFF)
        return slots

    def rows(self, slots: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The rows at slots of this space; order is kept."""
        runs = np.array(self.runs, dtype=np.uint32)
        rows: NDArray[np.uint32] = (runs[slots >> _RUN_BITS] << _RUN_BITS) | (slots & 0xFFFF)
        return rows

    def all_rows(self) -> BitMap:
        """Every row handed out."""
        rows = BitMap()
        for rank, run in enumerate(self.runs):
            full = rank < len(self.runs) - 1
            first = run << _RUN_BITS
            rows.add_range(first, first + (settings.RUN_ROWS if full else self.used))
        return rows


_ALLOCATION = msgspec.msgpack.Decoder(Allocation)
_SPACE = msgspec.msgpack.Decoder(SpaceRecord)


def _allocation_key(space: int) -> bytes:
    return _ROWS + _RUN.pack(space)


def _put_allocation(txn: Writer, space: int, owned: Allocation) -> None:
    txn.put(tables.META, _allocation_key(space), msgspec.msgpack.encode(owned))


def allocation(txn: ReadTxn, space: int) -> Allocation:
    payload = txn.get(tables.META, _allocation_key(space))
    return Allocation() if payload is None else _ALLOCATION.decode(payload)


def allocate(txn: Writer, space: int, count: int) -> list[int]:
    """``count`` new row ids owned by ``space``, ascending within a run."""
    current = allocation(txn, space)
    runs, used = list(current.runs), current.used
    rows: list[int] = []
    while len(rows) < count:
        if not runs or used == settings.RUN_ROWS:
            runs.append(txn.allocate_run())
            used = 0
        taken = min(count - len(rows), settings.RUN_ROWS - used)
        first = (runs[-1] << _RUN_BITS) + used
        rows.extend(range(first, first + taken))
        used += taken
    _put_allocation(txn, space, Allocation(tuple(runs), used))
    return rows


def share(txn: Writer, space: int, runs: Iterable[int]) -> None:
    """Give ``space`` slots for the rows of runs that others hand out.

    The run it hands out itself, if any, is taken for full: a slot follows from a run's rank, and
    a rank must not change.
    """
    present = allocation(txn, space).runs
    new = sorted(set(runs) - set(present))
    if new:
        _put_allocation(txn, space, Allocation((*present, *new), settings.RUN_ROWS))
        txn.layout_moved()


def _space_key(number: int) -> bytes:
    return number.to_bytes(2, "big")


def spaces(txn: ReadTxn) -> list[SpaceRecord]:
    return [_decode(payload) for _, payload in txn.scan(tables.SPACES)]


def answering(txn: ReadTxn) -> list[SpaceRecord]:
    """All but those that are being filled: a row has its vector in one of these at most."""
    return [space for space in spaces(txn) if not space.filling]


def find_space(txn: ReadTxn, name: str) -> SpaceRecord | None:
    return next((space for space in spaces(txn) if space.name == name), None)


def get_space(txn: ReadTxn, number: int) -> SpaceRecord | None:
    payload = txn.get(tables.SPACES, _space_key(number))
    return None if payload is None else _decode(payload)


def put_space(txn: Writer, space: SpaceRecord) -> None:
    """Rewrite the record of a space; one that was dropped meanwhile stays dropped.

    Whatever becomes of a space moves the layout: what is known of spaces is kept by that.
    """
    txn.layout_moved()
    key = _space_key(space.number)
    if txn.get(tables.SPACES, key) is not None:
        txn.put(tables.SPACES, key, msgspec.msgpack.encode(space))


def create_space(txn: Writer, space: SpaceRecord) -> SpaceRecord:
    """Enter a new space under the next number; ``Conflict`` when the name is taken.

    A number is never given twice: what is left of a dropped space (a cache in another process, a
    file that could not be removed) must not be taken for the new one's.
    """
    if find_space(txn, space.name) is not None:
        raise Conflict("a space of that name exists", hint="choose another name or drop it")
    given = [
        _RUN.unpack(key[len(_ROWS) :])[0] for key in txn.scan_keys(tables.META, _ROWS, _ROWS_END)
    ]
    txn.layout_moved()
    made = msgspec.structs.replace(space, number=1 + max(given, default=NO_VECTOR))
    _put_allocation(txn, made.number, Allocation())
    txn.put(tables.SPACES, _space_key(made.number), msgspec.msgpack.encode(made))
    return made


def drop_space(txn: Writer, number: int) -> None:
    """Forget the space; neither its number nor its runs are handed out again."""
    txn.layout_moved()
    txn.delete(tables.SPACES, _space_key(number))


def _decode(payload: bytes) -> SpaceRecord:
    try:
        return _SPACE.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a space's record does not decode", path="kv") from error
