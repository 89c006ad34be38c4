"""Sets of slots, compiled once and searched many times.

The strategy: the dense little-endian bitset is the truth, because a scan consumes it as it is: four
bytes are one block of 32 rows. The sorted array is made when somebody asks. A set is immutable, and
may be shared between threads. It knows nothing of what lies at a slot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.errors import InvalidArgument

MAX_SLOTS = 2**32 - 1


class SlotSet:
    """An immutable set of slots in 0 ... 2**32 - 2."""

    __slots__ = ("_array", "_blocks", "bitset", "count", "limit")

    bitset: NDArray[np.uint8]
    """Bit ``slot & 7`` of byte ``slot >> 3``; the last byte is not zero."""
    count: int
    limit: int
    """One past the greatest slot; 0 of the empty set."""

    def __init__(self, bitset: NDArray[np.uint8]) -> None:
        """Takes (bytes,) uint8 and keeps it: the caller changes it no more."""
        if bitset.dtype != np.uint8 or bitset.ndim != 1:
            raise InvalidArgument("a bitset is an array of bytes", field="allowed")
        used = len(bitset)
        if used and not bitset[-1]:
            occupied = np.flatnonzero(bitset)
            used = int(occupied[-1]) + 1 if len(occupied) else 0
        self.bitset = np.ascontiguousarray(bitset[:used])
        self.bitset.setflags(write=False)
        self.count = _popcount(self.bitset)
        self.limit = (used - 1) * 8 + int(self.bitset[-1]).bit_length() if used else 0
        self._array: NDArray[np.uint32] | None = None
        self._blocks: int | None = None

    @classmethod
    def empty(cls) -> SlotSet:
        return cls(np.zeros(0, np.uint8))

    @classmethod
    def all(cls, count: int) -> SlotSet:
        """Slots 0 ... count - 1."""
        if not 0 <= count <= MAX_SLOTS:
            raise InvalidArgument("a set has at most 2**32 - 1 slots", field="allowed")
        bitset = np.full((count + 7) // 8, 0xFF, np.uint8)
        if count % 8:
            bitset[-1] = (1 << count % 8) - 1
        return cls(bitset)

    @classmethod
    def from_slots(cls, slots: ArrayLike) -> SlotSet:
        """Of integers in any order, repeated or not."""
        given = np.asarray(slots)
        if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
            raise InvalidArgument("slots must be a list of integers", field="allowed")
        if not len(given):
            return cls.empty()
        least, most = int(given.min()), int(given.max())
        if least < 0 or most >= MAX_SLOTS:
            raise InvalidArgument("slots must be in 0 ... 2**32 - 2", field="allowed")
        flags = np.zeros((most // 8 + 1) * 8, np.bool_)
        flags[given] = True
        return cls(np.packbits(flags, bitorder="little"))

    @classmethod
    def from_bitset(cls, bitset: bytes | bytearray | memoryview | NDArray[np.uint8]) -> SlotSet:
        """Of little-endian bits in bytes; they are copied."""
        return cls(np.array(np.frombuffer(bitset, np.uint8)))

    @property
    def array(self) -> NDArray[np.uint32]:
        """(count,) ascending slots."""
        if self._array is None:
            bits = np.unpackbits(self.bitset, bitorder="little")
            array = np.flatnonzero(bits).astype(np.uint32)
            array.setflags(write=False)
            self._array = array
        return self._array

    @property
    def blocks(self) -> int:
        """How many blocks of 32 slots have one of the set."""
        if self._blocks is None:
            whole = len(self.bitset) // 4 * 4
            found = int(np.count_nonzero(self.bitset[:whole].view(np.uint32)))
            self._blocks = found + bool(self.bitset[whole:].any())
        return self._blocks

    def contains(self, slots: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """(n,) whether each slot is in the set."""
        if not len(self.bitset):
            return np.zeros(len(slots), np.bool_)
        inside: NDArray[np.bool_] = slots < self.limit
        at = np.where(inside, slots, 0)
        inside &= ((self.bitset[at >> 3] >> (at & 7).astype(np.uint8)) & 1).astype(np.bool_)
        return inside

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return self.count > 0

    def __and__(self, other: SlotSet) -> SlotSet:
        shared = min(len(self.bitset), len(other.bitset))
        return SlotSet(self.bitset[:shared] & other.bitset[:shared])

    def __or__(self, other: SlotSet) -> SlotSet:
        short, long = sorted((self.bitset, other.bitset), key=len)
        union = long.copy()
        union[: len(short)] |= short
        return SlotSet(union)

    def __sub__(self, other: SlotSet) -> SlotSet:
        rest = self.bitset.copy()
        shared = min(len(rest), len(other.bitset))
        rest[:shared] &= ~other.bitset[:shared]
        return SlotSet(rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotSet) and np.array_equal(self.bitset, other.bitset)

    def __hash__(self) -> int:
        return hash(self.bitset.tobytes())

    def __repr__(self) -> str:
        return f"SlotSet({self.count} of {self.limit})"


def _popcount(bitset: NDArray[np.uint8]) -> int:
    if not hasattr(np, "bitwise_count"):  # numpy 1
        return int.from_bytes(bitset.tobytes(), "little").bit_count()
    whole = len(bitset) // 8 * 8
    counted = int(np.bitwise_count(bitset[:whole].view(np.uint64)).sum(dtype=np.int64))
    return counted + int(np.bitwise_count(bitset[whole:]).sum(dtype=np.int64))
