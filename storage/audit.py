"""The rows of the audit as bytes: a chain in which each row is bound to the one before it.

A row says who in the clear of the chain, and what in a part that can be blanked. Integers are
little-endian; ``|`` joins bytes::

    row    := fixed | who | mark u8 | inner 32 | link 32 | salt 16 | body
    fixed  := who's bytes u16 | body's bytes u32 | sequence u64 | time i64 (microseconds UTC)
    inner  := H("what", salt | body)
    link   := H("row", link of the row before | fixed | who | inner)
    mark   := 0 as written | 1 blanked: salt and body are zeros

H is BLAKE2b of 32 bytes, personalised. A row is right if and only if its link is the one above
and, unless it is blanked, so is its inner hash. So an erasure can blank salt and body, and every
link still holds: what was there cannot even be guessed and confirmed, since the salt is gone.

Rows of writes lie in table ``audit``, under their sequence number, in the transaction of the write;
rows of reads in the files of ``audit_log``. Who is msgpack ``Who``, what is msgpack ``What``. This
file knows bytes and one LMDB table; it does not know files, nor who may do what.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

FIXED: Final = struct.Struct("<HIQq")
LINK_BYTES: Final = 32
SALT_BYTES: Final = 16
AFTER_WHO: Final = 1 + 2 * LINK_BYTES + SALT_BYTES  # mark, inner, link, salt
NO_LINK: Final = bytes(LINK_BYTES)
WRITTEN, BLANKED = 0, 1
MAX_WHO_BYTES: Final = 4096
STORE: Final = "store"
"""The writer of the rows in LMDB, which every process appends to."""

_HEADS, _HEADS_END = b"audit/", b"audit0"
_SALTS_AHEAD: Final = 256


class Who(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Who did something, and by which rule. It outlives an erasure: it holds no content."""

    principal: str
    token: str
    action: str
    verb: str
    transport: str
    rule: str
    outcome: str


class What(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was done to what. ``ids``: ULIDs in a row, 16 bytes each; ``samples``: ids of samples;
    ``where``: JSON; ``count``: how many there were."""

    ids: bytes = b""
    samples: tuple[str, ...] = ()
    count: int = 0
    where: str | None = None
    purpose: str | None = None
    tool: str | None = None
    query: str | None = None


class Row(NamedTuple):
    """A row as it is stored; ``what`` is None once it is blanked."""

    seq: int
    at_us: int
    who: Who
    what: What | None
    link: bytes


class Head(msgspec.Struct, array_like=True, frozen=True):
    """An anchor: how far a writer's chain had come, and its last link. ``number``: of its file."""

    seq: int
    link: bytes
    number: int = 0
    at_us: int = 0


class Broken(Exception):
    """A row that is not right; the message says why."""


_ENCODER = msgspec.msgpack.Encoder()
_WHO = msgspec.msgpack.Decoder(Who)
_WHAT = msgspec.msgpack.Decoder(What)
_HEAD = msgspec.msgpack.Decoder(Head)
encode = _ENCODER.encode


class _Salts:
    """Random bytes, asked of the system many at a time."""

    def __init__(self) -> None:
        self._ahead: list[bytes] = []

    def __call__(self) -> bytes:
        try:
            return self._ahead.pop()
        except IndexError:
            drawn = os.urandom(SALT_BYTES * _SALTS_AHEAD)
            more = [drawn[at : at + SALT_BYTES] for at in range(0, len(drawn), SALT_BYTES)]
            salt = more.pop()
            self._ahead = more
            return salt


new_salt = _Salts()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: new_salt._ahead.clear())


def inner_of(salt: bytes, body: bytes) -> bytes:
    return blake2b(salt + body, digest_size=LINK_BYTES, person=b"memdb audit what").digest()


def link_of(before: bytes, header: bytes, inner: bytes) -> bytes:
    """``header``: fixed and who."""
    return blake2b(
        before + header + inner, digest_size=LINK_BYTES, person=b"memdb audit row"
    ).digest()


def pack(before: bytes, seq: int, at_us: int, who: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The row that follows the link ``before``, and its own link."""
    header = FIXED.pack(len(who), len(body), seq, at_us) + who
    salt = new_salt()
    inner = inner_of(salt, body)
    link = link_of(before, header, inner)
    return b"".join((header, b"\0", inner, link, salt, body)), link


def size_at(buffer: bytes | memoryview, offset: int) -> int | None:
    """Bytes of the row that begins there; None when the buffer ends before it can be told."""
    if len(buffer) - offset < FIXED.size:
        return None
    who_bytes, body_bytes, _, _ = FIXED.unpack_from(buffer, offset)
    return int(FIXED.size + who_bytes + AFTER_WHO + body_bytes)


def unpack(raw: bytes) -> Row:
    """One whole row, unchecked. Raises ``Broken`` where it does not decode."""
    try:
        who_bytes, body_bytes, seq, at_us = FIXED.unpack_from(raw)
        after = FIXED.size + who_bytes
        who = _WHO.decode(raw[FIXED.size : after])
        mark = raw[after]
        link = raw[after + 1 + LINK_BYTES : after + 1 + 2 * LINK_BYTES]
        body = raw[after + AFTER_WHO : after + AFTER_WHO + body_bytes]
        what = None if mark == BLANKED else _WHAT.decode(body)
    except (struct.error, msgspec.DecodeError, ValueError, IndexError) as error:
        raise Broken("does not decode") from error
    return Row(seq, at_us, who, what, link)


def verified(raw: bytes, before: bytes, seq: int) -> bytes:
    """The link of a row that follows ``before`` as number ``seq``. Raises ``Broken``."""
    if size_at(raw, 0) != len(raw):
        raise Broken("has another length than it says")
    who_bytes, _, number, _ = FIXED.unpack_from(raw)
    if number != seq:
        raise Broken(f"is number {number} where {seq} should be")
    after = FIXED.size + who_bytes
    mark = raw[after]
    inner = raw[after + 1 : after + 1 + LINK_BYTES]
    link = raw[after + 1 + LINK_BYTES : after + 1 + 2 * LINK_BYTES]
    kept = raw[after + 1 + 2 * LINK_BYTES :]
    if mark == WRITTEN:
        if inner_of(kept[:SALT_BYTES], kept[SALT_BYTES:]) != inner:
            raise Broken("was changed")
    elif mark != BLANKED or any(kept):
        raise Broken("was changed")
    if link_of(before, raw[:after], inner) != link:
        raise Broken("does not follow the row before it")
    return bytes(link)


def is_blanked(raw: bytes) -> bool:
    return bool(raw[FIXED.size + FIXED.unpack_from(raw)[0]] == BLANKED)


def is_half_blanked(raw: bytes) -> bool:
    """Whether a crash came between the mark and the zeros."""
    return is_blanked(raw) and any(raw[mark_at(raw) + 1 + 2 * LINK_BYTES :])


def mark_at(raw: bytes) -> int:
    """Where in a row its mark is."""
    return int(FIXED.size + FIXED.unpack_from(raw)[0])


def blanked(raw: bytes) -> bytes:
    """The row without salt and body; as long as before."""
    who_bytes = FIXED.unpack_from(raw)[0]
    after = FIXED.size + who_bytes
    kept = after + 1 + 2 * LINK_BYTES
    return raw[:after] + bytes((BLANKED,)) + raw[after + 1 : kept] + bytes(len(raw) - kept)


# --- in LMDB --------------------------------------------------------------------------------


def append(txn: WriteTxn, at_us: int, who: bytes, body: bytes) -> int:
    """Add a row in the transaction of the write it is of; returns its number."""
    head = head_of(txn, STORE) or Head(0, NO_LINK)
    seq = head.seq + 1
    row, link = pack(head.link, seq, at_us, who, body)
    txn.put(tables.AUDIT, seq.to_bytes(8, "big"), row)
    put_head(txn, STORE, Head(seq, link, 0, at_us))
    return seq


def stored(txn: ReadTxn, after: int = 0) -> Iterator[tuple[int, bytes]]:
    """(number, row) of the rows past number ``after``, in their order."""
    if txn.has(tables.AUDIT):
        for key, row in txn.scan(tables.AUDIT, (after + 1).to_bytes(8, "big")):
            yield int.from_bytes(key, "big"), row


def put_back(txn: WriteTxn, seq: int, row: bytes) -> None:
    """Replace a row by its blanked form."""
    txn.put(tables.AUDIT, seq.to_bytes(8, "big"), row)


def head_of(txn: ReadTxn, writer: str) -> Head | None:
    payload = txn.get(tables.META, _HEADS + writer.encode())
    return None if payload is None else _decode_head(payload)


def put_head(txn: WriteTxn, writer: str, head: Head) -> None:
    txn.put(tables.META, _HEADS + writer.encode(), _ENCODER.encode(head))


def heads(txn: ReadTxn) -> dict[str, Head]:
    """The last anchor of every writer."""
    return {
        key[len(_HEADS) :].decode(): _decode_head(payload)
        for key, payload in txn.scan(tables.META, _HEADS, _HEADS_END)
    }


def _decode_head(payload: bytes) -> Head:
    try:
        return _HEAD.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("an anchor of the audit does not decode", path="kv") from error
