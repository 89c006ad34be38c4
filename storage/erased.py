"""What was erased, and what is left to do about it: fingerprints and jobs. No content.

A *fingerprint* is 16 bytes of keyed BLAKE2b of something by which an erased memory could come
back: its id, the caller's own id, the digest of a file's chunk, a sample's times and data. Without
the store's key it says nothing. Table ``erased``::

    fingerprint 16 -> receipt's number u32 LE | kind, one byte

A *job* is an erasure that is not finished, under ``erase/`` and its receipt's number in ``meta``.
It goes through the phases below, each of which may be done again after a crash::

    rows       rows and samples leave every structure of LMDB, a slice a transaction
    files      a new generation without dead bytes; once no reader has an older one, the slots of
               the rows are zeroed, and blobs and leftovers removed
    snapshots  the same for every snapshot that can be reached

``erased`` beside FORMAT is a copy of the table, for databases that were made from a snapshot::

    file := "MDBERASE" | version u32 = 1 | database 16 | count u32
            | (fingerprint 16 | number u32 | kind u8) * count | crc32c u32 of all before it

This file knows bytes and numbers. It does not know how anything is removed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
from google_crc32c import value as crc32c
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.generations import write_atomically

ID: Final = b"i"
EXTERNAL: Final = b"x"
CHUNK: Final = b"c"
SAMPLE: Final = b"s"

LIST_NAME: Final = "erased"
_BYTES: Final = 16
_VALUE: Final = struct.Struct("<Ic")
_HEAD: Final = struct.Struct("<8sI16sI")
_ENTRY: Final = struct.Struct("<16sIc")
_CRC: Final = struct.Struct("<I")
_MAGIC: Final = b"MDBERASE"
_VERSION: Final = 1
_JOBS, _JOBS_END = b"erase/", b"erase0"

Phase = Literal["rows", "files", "snapshots"]


class Mark(msgspec.Struct, frozen=True):
    """Of one fingerprint: the receipt it belongs to, and what it is of."""

    number: int
    kind: bytes


# --- fingerprints -------------------------------------------------------------------------


def database_id(txn: ReadTxn) -> bytes:
    """16 bytes that a database shares with its snapshots and with no other."""
    return txn.digest(b"database", _BYTES)


def fingerprint(txn: ReadTxn, kind: bytes, data: bytes) -> bytes:
    return txn.digest(b"erased" + kind + data, _BYTES)


def put(txn: WriteTxn, marks: Mapping[bytes, Mark]) -> None:
    txn.put_many(
        tables.ERASED,
        [(key, _VALUE.pack(mark.number, mark.kind)) for key, mark in sorted(marks.items())],
    )


def anything(txn: ReadTxn) -> bool:
    """Whether anything was ever erased."""
    return txn.has(tables.ERASED) and txn.count(tables.ERASED) > 0


def among(txn: ReadTxn, fingerprints: Iterable[bytes]) -> set[bytes]:
    """Those of the fingerprints that are of something erased."""
    wanted = sorted(set(fingerprints))
    return set(txn.get_many(tables.ERASED, wanted)) if wanted and anything(txn) else set()


def marks(txn: ReadTxn, after: int = 0) -> dict[bytes, Mark]:
    """Every fingerprint of the receipts past number ``after``."""
    if not anything(txn):
        return {}
    found = ((key, Mark(*_VALUE.unpack(payload))) for key, payload in txn.scan(tables.ERASED))
    return {key: mark for key, mark in found if mark.number > after}


def write_list(path: Path, txn: ReadTxn) -> None:
    """Put a copy of the fingerprints into the directory of the database at ``path``."""
    found = marks(txn)
    parts = [_HEAD.pack(_MAGIC, _VERSION, database_id(txn), len(found))]
    parts += [_ENTRY.pack(key, mark.number, mark.kind) for key, mark in sorted(found.items())]
    content = b"".join(parts)
    write_atomically(path / LIST_NAME, content + _CRC.pack(crc32c(content)))


def read_list(path: Path, database: bytes) -> dict[bytes, Mark]:
    """What ``write_list`` left there; empty where there is none, or another database's."""
    try:
        raw = (path / LIST_NAME).read_bytes()
    except OSError:
        return {}
    content = raw[: -_CRC.size]
    if len(raw) < _HEAD.size + _CRC.size or _CRC.unpack(raw[-_CRC.size :])[0] != crc32c(content):
        raise StoreCorrupt("the list of what was erased is damaged", path=str(path / LIST_NAME))
    magic, version, owner, count = _HEAD.unpack_from(content)
    if (magic, version) != (_MAGIC, _VERSION) or len(content) != _HEAD.size + count * _ENTRY.size:
        raise StoreCorrupt("the list of what was erased is damaged", path=str(path / LIST_NAME))
    if owner != database:
        return {}
    return {
        key: Mark(number, kind) for key, number, kind in _ENTRY.iter_unpack(content[_HEAD.size :])
    }


# --- jobs ---------------------------------------------------------------------------------


class Job(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An erasure under way. ``rows`` and ``left`` are roaring: all of them, and those that the
    first phase has yet to remove."""

    number: int
    receipt: str
    rows: bytes
    left: bytes
    samples: tuple[str, ...] = ()
    phase: Phase = "rows"
    generation: int = 0
    blobs: tuple[bytes, ...] = ()

    def all_rows(self) -> BitMap:
        return BitMap.deserialize(self.rows)

    def rows_left(self) -> BitMap:
        return BitMap.deserialize(self.left)


_DECODER = msgspec.msgpack.Decoder(Job)


def _key(number: int) -> bytes:
    return _JOBS + number.to_bytes(4, "big")


def put_job(txn: WriteTxn, job: Job) -> None:
    txn.put(tables.META, _key(job.number), msgspec.msgpack.encode(job))


def drop_job(txn: WriteTxn, number: int) -> None:
    txn.delete(tables.META, _key(number))


def job(txn: ReadTxn, number: int) -> Job | None:
    payload = txn.get(tables.META, _key(number))
    return None if payload is None else _decode(payload)


def jobs(txn: ReadTxn) -> list[Job]:
    """Erasures that are not finished, oldest first."""
    return list(_jobs(txn))


def _jobs(txn: ReadTxn) -> Iterator[Job]:
    for _, payload in txn.scan(tables.META, _JOBS, _JOBS_END):
        yield _decode(payload)


def pending(txn: ReadTxn) -> bool:
    """Whether an erasure is under way."""
    return txn.first_key(tables.META, _JOBS, _JOBS_END) is not None


def rows_under_way(txn: ReadTxn) -> BitMap:
    """Rows that are erased and still in some structure."""
    rows = BitMap()
    for one in _jobs(txn):
        rows |= one.rows_left()
    return rows


def _decode(payload: bytes) -> Job:
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("an erasure under way does not decode", path="kv") from error
