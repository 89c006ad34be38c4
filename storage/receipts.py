"""Receipts of erasures: a chain of entries, each bound to the one before it by its hash.

Under ``receipt/`` and a number in ``meta``, ascending without a gap. Each entry is msgpack and
carries the BLAKE2b of the entry before it (32 bytes; zeros before the first), so that none can be
changed or taken out unseen. An erasure has two: ``hidden`` when it was decided, ``scrubbed`` when
its last byte was gone. No entry holds content: counts, times, and what could not be reached.

This file knows entries; it does not know what an erasure does.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Literal

import msgspec

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

_PREFIX, _END = b"receipt/", b"receipt0"
_FIRST: Final = bytes(32)
_PERSON: Final = b"memdb receipt"

State = Literal["hidden", "scrubbed"]


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One link. ``counts``: what was, or is to be, removed, by kind."""

    id: str
    at_us: int
    state: State
    counts: dict[str, int]
    out_of_reach: tuple[str, ...]
    previous: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)


def hash_of(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=32, person=_PERSON).digest()


def _key(number: int) -> bytes:
    return _PREFIX + number.to_bytes(4, "big")


def last_number(txn: ReadTxn) -> int:
    """The number of the newest entry; 0 when there is none."""
    key = txn.last_key(tables.META, _PREFIX, _END)
    return 0 if key is None else int.from_bytes(key[len(_PREFIX) :], "big")


def append(
    txn: WriteTxn,
    *,
    id: str,
    at_us: int,
    state: State,
    counts: dict[str, int],
    out_of_reach: tuple[str, ...],
) -> int:
    """Add an entry to the chain; returns its number."""
    last = last_number(txn)
    before = txn.get(tables.META, _key(last)) if last else None
    entry = Entry(
        id=id,
        at_us=at_us,
        state=state,
        counts=counts,
        out_of_reach=out_of_reach,
        previous=_FIRST if before is None else hash_of(before),
    )
    txn.put(tables.META, _key(last + 1), _ENCODER.encode(entry))
    return last + 1


def entry(txn: ReadTxn, number: int) -> Entry | None:
    payload = txn.get(tables.META, _key(number))
    return None if payload is None else _decode(payload)


def chain(txn: ReadTxn) -> list[tuple[Entry, bytes]]:
    """Every entry with its hash, oldest first.

    Raises ``StoreCorrupt`` when an entry is missing or is not the one its follower names.
    """
    found: list[tuple[Entry, bytes]] = []
    previous = _FIRST
    for key, payload in txn.scan(tables.META, _PREFIX, _END):
        one = _decode(payload)
        number = int.from_bytes(key[len(_PREFIX) :], "big")
        if one.previous != previous or number != len(found) + 1:
            raise StoreCorrupt("the chain of receipts is broken", path="kv")
        previous = hash_of(payload)
        found.append((one, previous))
    return found


def _decode(payload: bytes) -> Entry:
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a receipt does not decode", path="kv") from error
