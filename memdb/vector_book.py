"""The book of a ``VectorIndex``: which id lies at which slot, in which state.

It lives in a small LMDB environment of its own, which is the only commit point of the index. The
tables of ``memdb.storage.tables`` are used so:

======== ========================== ==========================================================
table    key                        payload
======== ========================== ==========================================================
meta     ``vector_index``           msgpack of ``State``
ids      id u64                     slot u32
records  block u32                  208 ids u64, then 208 states u8: the slots of the block
vectors  slot u32                   a fresh vector, f32[dim]
cold     transaction u64 | slot u32 (none): zero the slot when no snapshot is older
changes  sequence u64               blocks u32[] that the commit touched; empty: any
meta     ``graph_pages`` | seq. u64 pages u32[] of the graph written for the commit; empty: any
meta     ``graph_session``          16 bytes: who last began to change the graph in place
======== ========================== ==========================================================

Slots run from 0 to the capacity. A slot is *free*, *fresh* (its vector is in ``vectors``),
*encoded* (in the index's files), *linked* (encoded, and in the graph of all processes, which only
kind "ssd" has), or *retired* (encoded once, its bytes not yet zeroed). This file knows
transactions and arrays; it does not know distances or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import FormatTooNew, StoreCorrupt
from memdb.index.protocol import Profile
from memdb.index.slots import SlotSet
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

FORMAT: Final = 2
PLAIN_FORMAT: Final = 1
"""What an index without linked slots and codes in rows says: earlier releases read it."""
FREE: Final = 0
FRESH: Final = 1
ENCODED: Final = 2
RETIRED: Final = 3
LINKED: Final = 4

_STATE_KEY: Final = b"vector_index"
_PAGES_KEY: Final = b"graph_pages"
_SESSION_KEY: Final = b"graph_session"
_BLOCK_SLOTS: Final = 208  # 9 bytes each: the most whose block is a small value
_BLOCK_BYTES: Final = 9 * _BLOCK_SLOTS
_LOGGED_BLOCKS: Final = 400
_LOG_KEPT: Final = 256

Slots = NDArray[np.uint32]
Ids = NDArray[np.uint64]
Floats = NDArray[np.float32]


class Converting(msgspec.Struct, frozen=True, kw_only=True):
    """A job: the profile that is wanted, and below which slot its files are right."""

    profile: Profile
    copied: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit left: read first in every transaction."""

    format: int = PLAIN_FORMAT
    sequence: int = 0
    count: int = 0
    kind: str = "flat"
    spec: dict[str, Any]
    params: dict[str, int | float] = {}
    converting: Converting | None = None
    auto: bool = False  # whether the index may choose another kind


_DECODER = msgspec.msgpack.Decoder(State)


def load_state(txn: ReadTxn) -> State | None:
    """None where no index was made yet."""
    payload = txn.get(tables.META, _STATE_KEY)
    if payload is None:
        return None
    try:
        state = _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise StoreCorrupt("the index's state does not decode", path="kv") from error
    if state.format > FORMAT:
        raise FormatTooNew(f"the index has format {state.format}; this memdb reads {FORMAT}")
    return state


def save_state(txn: WriteTxn, state: State) -> None:
    txn.put(tables.META, _STATE_KEY, msgspec.msgpack.encode(state))


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _keys(numbers: NDArray[Any], size: int) -> list[bytes]:
    """Big-endian keys of ``size`` bytes."""
    packed = numbers.astype(f">u{size}").tobytes()
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def find_slots(txn: ReadTxn, ids: Ids) -> dict[int, int]:
    """Slot by id, of those ids that are in the index."""
    found = txn.get_many(tables.IDS, sorted(_keys(ids, 8)))
    return {
        int.from_bytes(key, "big"): int.from_bytes(slot, "little") for key, slot in found.items()
    }


def has_id(txn: ReadTxn, number: int) -> bool:
    return txn.exists(tables.IDS, _u64(number))


@dataclass(frozen=True)
class Book:
    """All slots as of one sequence number; immutable once it is shared."""

    state: State
    ids: Ids  # (capacity,) valid where the slot is fresh or encoded
    states: NDArray[np.uint8]  # (capacity,)
    fresh_slots: Slots  # (m,) in any order
    fresh: Floats  # (m, dim)
    encoded: SlotSet  # linked or not
    linked: SlotSet

    @property
    def sequence(self) -> int:
        return self.state.sequence

    def present(self) -> NDArray[np.bool_]:
        """(capacity,) whether a vector lies at the slot."""
        found: NDArray[np.bool_] = (self.states == FRESH) | in_files(self.states)
        return found


def load_book(txn: ReadTxn, state: State, dim: int, known: Book | None) -> Book:
    """The book as ``txn`` sees it, reading only what changed since ``known`` where the log says."""
    blocks = _blocks_since(txn, known.sequence, state.sequence) if known is not None else None
    if known is None or blocks is None:
        entries = list(txn.scan(tables.RECORDS))
        ids, states = _grown(None, len(entries))
    else:
        entries = sorted(txn.get_many(tables.RECORDS, [_u32(block) for block in blocks]).items())
        highest = max(blocks, default=-1) + 1
        ids, states = _grown(known, max(highest, len(known.states) // _BLOCK_SLOTS))
    for key, payload in entries:
        block = int.from_bytes(key, "big")
        if len(payload) != _BLOCK_BYTES or block >= len(states) // _BLOCK_SLOTS:
            raise StoreCorrupt("a block of slots has the wrong length", path="kv")
        at = slice(block * _BLOCK_SLOTS, (block + 1) * _BLOCK_SLOTS)
        ids[at] = np.frombuffer(payload, "<u8", _BLOCK_SLOTS)
        states[at] = np.frombuffer(payload, np.uint8, offset=8 * _BLOCK_SLOTS)
    if known is None or blocks is None:
        stale = np.flatnonzero(states == FRESH).astype(np.uint32)
        kept_slots, kept = np.empty(0, np.uint32), np.empty((0, dim), np.float32)
    else:
        inside = np.isin(known.fresh_slots // _BLOCK_SLOTS, blocks)
        kept_slots, kept = known.fresh_slots[~inside], known.fresh[~inside]
        ranges = [np.arange(_BLOCK_SLOTS, dtype=np.uint32) + b * _BLOCK_SLOTS for b in blocks]
        places = np.concatenate([np.empty(0, np.uint32), *ranges])
        stale = places[states[places] == FRESH]
    return Book(
        state,
        ids,
        states,
        np.concatenate((kept_slots, stale)),
        np.concatenate((kept, _load_fresh(txn, stale, dim))),
        encoded_set(states),
        SlotSet(np.packbits(states == LINKED, bitorder="little")),
    )


def in_files(states: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) whether the slots are encoded, linked or not."""
    found: NDArray[np.bool_] = (states == ENCODED) | (states == LINKED)
    return found


def encoded_set(states: NDArray[np.uint8]) -> SlotSet:
    return SlotSet(np.packbits(in_files(states), bitorder="little"))


def _grown(known: Book | None, blocks: int) -> tuple[Ids, NDArray[np.uint8]]:
    ids, states = (
        np.zeros(blocks * _BLOCK_SLOTS, np.uint64),
        np.zeros(blocks * _BLOCK_SLOTS, np.uint8),
    )
    if known is not None:
        ids[: len(known.ids)], states[: len(known.states)] = known.ids, known.states
    return ids, states


def _blocks_since(txn: ReadTxn, known: int, wanted: int) -> list[int] | None:
    """Blocks touched by the commits known < sequence <= wanted; None when that is not known."""
    if known > wanted:
        return None
    touched: set[int] = set()
    entries = 0
    for _, payload in txn.scan(tables.CHANGES, _u64(known + 1), _u64(wanted + 1)):
        if not payload:
            return None
        touched.update(np.frombuffer(payload, "<u4").tolist())
        entries += 1
    return sorted(touched) if entries == wanted - known else None


def slots_since(txn: ReadTxn, known: int, wanted: int) -> Slots | None:
    """Slots that the commits known < sequence <= wanted may have touched; None: any."""
    blocks = _blocks_since(txn, known, wanted)
    if blocks is None:
        return None
    firsts = np.array(blocks, np.int64)[:, None] * _BLOCK_SLOTS
    return (firsts + np.arange(_BLOCK_SLOTS)).reshape(-1).astype(np.uint32)


def pages_since(txn: ReadTxn, known: int, wanted: int) -> Slots | None:
    """Pages of the graph written for the commits known < sequence <= wanted; None: any."""
    parts = [np.empty(0, np.uint32)]
    if not 0 <= wanted - known <= _LOG_KEPT:
        return None
    first, last = _PAGES_KEY + _u64(known + 1), _PAGES_KEY + _u64(wanted + 1)
    for _, payload in txn.scan(tables.META, first, last):
        if not payload:
            return None
        parts.append(np.frombuffer(payload, "<u4").astype(np.uint32))
    return np.unique(np.concatenate(parts))


def graph_session(txn: ReadTxn) -> bytes | None:
    """Who last began to change the graph in place."""
    return txn.get(tables.META, _SESSION_KEY)


def begin_session(txn: WriteTxn, name: bytes) -> None:
    txn.put(tables.META, _SESSION_KEY, name)


def _load_fresh(txn: ReadTxn, slots: Slots, dim: int) -> Floats:
    matrix = np.empty((len(slots), dim), np.float32)
    found = txn.get_many(tables.VECTORS, sorted(_keys(slots, 4)))
    for at, key in enumerate(_keys(slots, 4)):
        payload = found.get(key)
        if payload is None or len(payload) != 4 * dim:
            raise StoreCorrupt("a fresh vector is missing or has the wrong length", path="kv")
        matrix[at] = np.frombuffer(payload, "<f4")
    return matrix


class Draft:
    """The next book while its transaction is open."""

    def __init__(self, txn: WriteTxn, book: Book) -> None:
        self._txn = txn
        self._book = book
        self.ids = book.ids.copy()
        self.states = book.states.copy()
        self.kind, self.params = book.state.kind, book.state.params
        self.spec = book.state.spec
        self.converting = book.state.converting
        self.pages: Slots | None = np.empty(0, np.uint32)
        """Pages of the graph that were written for this commit; None: any."""
        self._touched: list[Slots] = []
        self._new_fresh: list[tuple[Slots, Floats]] = []
        self._count = book.state.count

    def take(self, count: int) -> Slots:
        """``count`` free slots, ascending; the capacity grows as needed."""
        free = np.flatnonzero(self.states == FREE)[:count].astype(np.uint32)
        missing = count - len(free)
        if missing:
            old = len(self.states)
            blocks = -(-missing // _BLOCK_SLOTS)
            self.states = np.concatenate((self.states, np.zeros(blocks * _BLOCK_SLOTS, np.uint8)))
            self.ids = np.concatenate((self.ids, np.zeros(blocks * _BLOCK_SLOTS, np.uint64)))
            free = np.concatenate((free, np.arange(old, old + missing, dtype=np.uint32)))
        return free

    def enter(self, ids: Ids, slots: Slots, vectors: Floats | None) -> None:
        """Put ids at free slots: fresh with their vectors, or encoded where those are None."""
        self.ids[slots] = ids
        self.states[slots] = ENCODED if vectors is None else FRESH
        self._touched.append(slots)
        self._count += len(ids)
        values = slots.astype("<u4").tobytes()
        pairs = zip(_keys(ids, 8), range(0, len(values), 4), strict=True)
        self._txn.put_many(tables.IDS, sorted((key, values[at : at + 4]) for key, at in pairs))
        if vectors is not None:
            self._new_fresh.append((slots, vectors))
            payloads = (vector.astype("<f4").tobytes() for vector in vectors)
            self._txn.put_many(tables.VECTORS, zip(_keys(slots, 4), payloads, strict=True))

    def encode(self, slots: Slots) -> None:
        """Fresh slots whose vectors are in the files now."""
        self.states[slots] = ENCODED
        self._touched.append(slots)
        for key in _keys(slots, 4):
            self._txn.delete(tables.VECTORS, key)

    def link(self, slots: Slots) -> None:
        """Encoded slots that are in the graph now."""
        self.states[slots] = LINKED
        self._touched.append(slots)

    def drop(self, found: dict[int, int], transaction: int) -> None:
        """Take ids (slot by id) out; encoded slots wait for snapshots up to ``transaction``."""
        slots = np.fromiter(found.values(), np.uint32, len(found))
        retired = slots[in_files(self.states[slots])]
        fresh = slots[self.states[slots] == FRESH]
        self.states[retired], self.states[fresh] = RETIRED, FREE
        self.ids[slots] = 0
        self._touched.append(slots)
        self._count -= len(slots)
        for number in found:
            self._txn.delete(tables.IDS, _u64(number))
        for key in _keys(fresh, 4):
            self._txn.delete(tables.VECTORS, key)
        self._txn.put_keys(tables.COLD, [_u64(transaction) + key for key in _keys(retired, 4)])

    def free(self, slots: Slots, keys: list[bytes]) -> None:
        """Retired slots whose bytes are zeroed."""
        self.states[slots] = FREE
        self._touched.append(slots)
        for key in keys:
            self._txn.delete(tables.COLD, key)

    def save(self) -> Book:
        """Write blocks, log and state; returns the book to use once the transaction commits."""
        touched = np.unique(np.concatenate(self._touched or [np.empty(0, np.uint32)]))
        blocks = np.unique(touched // _BLOCK_SLOTS)
        self._put_blocks(blocks)
        old = self._book.state
        state = msgspec.structs.replace(
            old,
            sequence=old.sequence + 1,
            format=FORMAT if self.kind == "ssd" else PLAIN_FORMAT,
            count=self._count,
            kind=self.kind,
            params=self.params,
            spec=self.spec,
            converting=self.converting,
        )
        # No block in the log means "any": where none was touched, others read one again, not all.
        named = blocks if len(blocks) or not len(self.states) else np.zeros(1, np.uint32)
        logged = named.astype("<u4").tobytes() if len(named) <= _LOGGED_BLOCKS else b""
        self._txn.put(tables.CHANGES, _u64(state.sequence), logged)
        self._txn.delete_range(tables.CHANGES, _u64(0), _u64(max(0, state.sequence - _LOG_KEPT)))
        self._put_pages(state.sequence)
        save_state(self._txn, state)
        slots, fresh = self._next_fresh(touched)
        encoded = self._next_set(self._book.encoded, blocks, ENCODED, LINKED)
        linked = self._next_set(self._book.linked, blocks, LINKED, LINKED)
        return Book(state, self.ids, self.states, slots, fresh, encoded, linked)

    def _next_set(
        self, old: SlotSet, blocks: NDArray[np.uint32], state: int, other: int
    ) -> SlotSet:
        """The slots in one of two states, looking only at the blocks that were touched."""
        states = self.states.reshape(-1, _BLOCK_SLOTS)[blocks]
        touched = (states == state) | (states == other)
        known = old.bitset
        if not len(known) and not touched.any():
            return old
        bits = np.zeros(len(self.states) // 8, np.uint8)
        bits[: len(known)] = known
        bits.reshape(-1, _BLOCK_SLOTS // 8)[blocks] = np.packbits(
            touched, axis=1, bitorder="little"
        )
        if np.array_equal(bits[: len(known)], known) and not bits[len(known) :].any():
            return old  # the same set: what was made of it holds
        return SlotSet(bits)

    def _put_pages(self, sequence: int) -> None:
        pages = self.pages
        if pages is not None and not len(pages):
            return
        if pages is not None and len(pages) > _LOGGED_BLOCKS:
            pages = None
        payload = b"" if pages is None else pages.astype("<u4").tobytes()
        self._txn.put(tables.META, _PAGES_KEY + _u64(sequence), payload)
        oldest = _PAGES_KEY + _u64(max(0, sequence - _LOG_KEPT))
        self._txn.delete_range(tables.META, _PAGES_KEY + _u64(0), oldest)

    def _put_blocks(self, blocks: NDArray[np.uint32]) -> None:
        known = len(self._book.states) // _BLOCK_SLOTS
        payloads = {}
        for block in blocks.tolist():
            at = slice(block * _BLOCK_SLOTS, (block + 1) * _BLOCK_SLOTS)
            payloads[block] = self.ids[at].astype("<u8").tobytes() + self.states[at].tobytes()
        old = [(_u32(block), payload) for block, payload in payloads.items() if block < known]
        new = [(_u32(block), payload) for block, payload in payloads.items() if block >= known]
        self._txn.put_many(tables.RECORDS, old)
        # Appended, two lie on a page; otherwise LMDB would leave half of each page empty.
        self._txn.put_many(tables.RECORDS, new, append=True)

    def _next_fresh(self, touched: Slots) -> tuple[Slots, Floats]:
        book = self._book
        slots, matrix = book.fresh_slots, book.fresh
        gone = np.isin(slots, touched)
        if gone.any():
            slots, matrix = slots[~gone], matrix[~gone]
        for new_slots, vectors in self._new_fresh:
            still = self.states[new_slots] == FRESH
            matrix = _appended(matrix, vectors[still])
            slots = np.concatenate((slots, new_slots[still]))
        return slots, matrix


def _appended(matrix: Floats, vectors: Floats) -> Floats:
    """The rows of both. Uses the free room behind ``matrix``, which no older view looks at."""
    used, needed = len(matrix), len(matrix) + len(vectors)
    buffer = matrix.base
    if (
        not isinstance(buffer, np.ndarray)
        or buffer.ndim != 2
        or buffer.dtype != np.float32
        or len(buffer) < needed
        or matrix.ctypes.data != buffer.ctypes.data
    ):
        buffer = np.empty((max(256, 2 * needed), matrix.shape[1]), np.float32)
        buffer[:used] = matrix
    buffer[used:needed] = vectors
    return buffer[:needed]


def due_slots(txn: ReadTxn, horizon: int, most: int | None = None) -> tuple[Slots, list[bytes]]:
    """Retired slots that no snapshot at or after ``horizon`` can see, the oldest first, and their
    keys; up to ``most``."""
    keys = list(islice(txn.scan_keys(tables.COLD, b"", _u64(horizon + 1)), most))
    return np.array(sorted(int.from_bytes(key[8:], "big") for key in keys), np.uint32), keys
