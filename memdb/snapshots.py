"""Snapshots that memdb made: where they are, and what was erased since they were made.

A snapshot is registered under ``snapshot/`` in the database it was made of, with the number of the
last receipt that it knows of; the copy itself says under ``origin`` what it was made of. So an
erasure goes to each snapshot that can be reached, and whoever opens a copy of one that could not
be, where the original's list of fingerprints can be read, has that applied before its first read.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from memdb.errors import MemdbError
from memdb.storage import erased, generations, receipts, tables
from memdb.storage import format as disk_format
from memdb.storage.environment import WriteTxn
from memdb.storage.store import Reader, Writer
from memdb.types import to_micros

if TYPE_CHECKING:
    from memdb.engine import Engine

_SNAPSHOTS, _SNAPSHOTS_END = b"snapshot/", b"snapshot0"
_ORIGIN = b"origin"


class Snapshot(msgspec.Struct, frozen=True):
    """A registered snapshot. ``erased``: the last receipt that has been applied to it."""

    path: str
    at: int
    erased: int = 0
    key: bytes = b""


class Origin(msgspec.Struct, frozen=True):
    """In a copy: the database it was made of, and the last of its receipts that was applied."""

    path: str
    erased: int


# --- in the database ------------------------------------------------------------------------


def known(txn: Reader | Writer) -> list[Snapshot]:
    """The snapshots that were made of this database, oldest first."""
    found = []
    for key, payload in txn.scan(tables.META, _SNAPSHOTS, _SNAPSHOTS_END):
        one = msgspec.msgpack.decode(payload, type=Snapshot)
        found.append(msgspec.structs.replace(one, key=key))
    return found


def register(engine: Engine, target: Path, number: int) -> None:
    """Remember where a snapshot went, so that an erasure can reach it."""
    now = engine.now()
    key = _SNAPSHOTS + engine.new_id(now).encode()
    made = Snapshot(str(target), to_micros(now), number)
    engine.store.write(lambda txn: _put(txn, key, made))


def applied(txn: Writer, snapshot: Snapshot, number: int) -> None:
    """Note that a snapshot knows of every receipt up to ``number``."""
    _put(txn, snapshot.key, msgspec.structs.replace(snapshot, erased=number))


def _put(txn: Writer, key: bytes, snapshot: Snapshot) -> None:
    fields = {"path": snapshot.path, "at": snapshot.at, "erased": snapshot.erased}
    txn.put(tables.META, key, msgspec.msgpack.encode(fields))


def settled(txn: Reader | Writer) -> int:
    """The number of the last receipt before which every erasure is done with the files."""
    waiting = [job.number for job in erased.jobs(txn) if job.phase != "snapshots"]
    return min(waiting, default=receipts.last_number(txn) + 1) - 1


# --- in the copy ----------------------------------------------------------------------------


def origin_of(txn: Reader) -> Origin | None:
    payload = txn.get(tables.META, _ORIGIN)
    return None if payload is None else msgspec.msgpack.decode(payload, type=Origin)


def begin_copy(txn: WriteTxn, origin: Path, number: int) -> None:
    """In a copy just made, as its first generation: what it was made of. It has no dead bytes, so
    an erasure that was waiting for a new generation goes on from there."""
    mark_origin(txn, origin, number)
    for job in erased.jobs(txn):
        erased.put_job(txn, msgspec.structs.replace(job, generation=0))


def mark_origin(txn: WriteTxn, origin: Path, number: int) -> None:
    txn.put(tables.META, _ORIGIN, msgspec.msgpack.encode(Origin(str(origin), number)))


def named(path: str) -> str:
    """How a receipt names a snapshot that was out of reach."""
    return f"the snapshot {path}"


def is_there(snapshot: Snapshot) -> bool:
    """Whether the snapshot, or another database, is where it was put, and can be written."""
    path = Path(snapshot.path)
    with contextlib.suppress(MemdbError, OSError):
        if disk_format.read_version(path) is None:
            return False
        generations.read_current(path / "kv")
        return os.access(path, os.W_OK)
    return False
