"""Blobs: contents too large for a value, in files of their own under ``blob/``.

A blob is named by the keyed hash of its content, so that equal contents are one file and the name
tells nobody without the key what it holds. Grammar of a file (integers little-endian)::

    blob  := "MDBB" | version u8 = 1 | 3 zeros | crc32c u32 of the rest | size u64 | zstd frame

valid if and only if the checksum fits, the frame gives ``size`` bytes, and their keyed hash is the
file's name. Table ``blobs`` counts references: hash -> ``count u32 | changed u64``; ``changed`` is
when the count last changed, in nanoseconds, and ascends.

**The protocol.** LMDB is the only commit point; a file is written first and made real by it.

1. ``put``, before the transaction: the content goes to ``tmp/``, is fsynced, renamed into
   ``blob/``, the directory fsynced. If the file is there already it is verified and its
   modification time set to now: "somebody is about to refer to this".
2. ``reference``, inside the transaction: counts, and refuses with ``Conflict`` if the file is gone.
3. ``release``, inside a transaction: counts down. At zero the row stays, as the mark that the
   file may go; a transaction that aborts has therefore lost nothing.
4. ``sweep``, by the holder of the maintenance lease: files whose row *was committed* at zero, or
   that never had a row, are removed if neither row nor file was touched for a grace period, which
   is longer than any snapshot is read. It removes them inside a write transaction, so that no
   ``reference`` can happen at the same time, and only if their row has not changed since the
   committed snapshot in which it was found.

Between the decision and the removal a ``put`` in another process may find the file still there. So
the sweep first moves the file out of ``blob/`` and looks at its time again: if ``put`` touched
it, it is moved back; if ``put`` comes later, it finds no file and writes one. What is left is a
writer that takes longer than the grace period from ``put`` to commit; ``reference`` catches it.

This file knows bytes and hashes. It does not know records.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

from google_crc32c import value as crc32c

from memdb.errors import Conflict, MemdbError, PermissionDenied, StoreCorrupt, StoreFull
from memdb.storage import tables
from memdb.storage.columns import compress, decompress
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.generations import fsync_directory
from memdb.storage.store import Store

HASH_BYTES = 32
GRACE_S = 3_600.0
_MAGIC = b"MDBB\x01\0\0\0"
_CHECK = struct.Struct("<I")
_SIZE = struct.Struct("<Q")
_HEAD_BYTES = len(_MAGIC) + _CHECK.size + _SIZE.size
_ROW = struct.Struct("<IQ")
_LEVEL = 9
_SWEPT_AT_ONCE = 32


class BlobStore:
    """The blobs of one database directory; thread-safe, holds nothing open."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._folder = path / "blob"
        self._tmp = path / "tmp"
        self._key = key

    # --- files --------------------------------------------------------------------------

    def hash_of(self, content: bytes) -> bytes:
        """The 32 bytes that name ``content``."""
        return blake2b(content, digest_size=HASH_BYTES, key=self._key).digest()

    def path_of(self, name: bytes) -> Path:
        return self._folder / name.hex()

    def put(self, content: bytes) -> bytes:
        """Make ``content`` durable; returns its hash, to be given to ``reference``.

        Call it before the transaction. Raises ``StoreFull``, ``PermissionDenied``.
        """
        name = self.hash_of(content)
        with _typed_errors():
            if not self._touch(name):
                self._write(name, content)
            fsync_directory(self._folder)
        return name

    def _touch(self, name: bytes) -> bool:
        """Announce the use of a file that is there; False if it is absent or damaged."""
        path = self.path_of(name)
        try:
            os.utime(path)  # before the look: see the protocol
            self._parse(name, path.read_bytes())
        except (FileNotFoundError, StoreCorrupt):
            return False
        return True

    def _write(self, name: bytes, content: bytes) -> None:
        body = _SIZE.pack(len(content)) + compress(content, _LEVEL)
        temporary = self._tmp / f"blob-{os.getpid()}-{threading.get_ident()}-{name.hex()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(_MAGIC + _CHECK.pack(crc32c(body)) + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path_of(name))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def get(self, name: bytes) -> bytes:
        """The content. ``StoreCorrupt`` naming the file when it is missing or damaged."""
        try:
            with _typed_errors():
                raw = self.path_of(name).read_bytes()
        except FileNotFoundError:
            raise StoreCorrupt("a blob is missing", path=f"blob/{name.hex()}") from None
        return self._parse(name, raw)

    def _parse(self, name: bytes, raw: bytes) -> bytes:
        path = f"blob/{name.hex()}"
        body = raw[len(_MAGIC) + _CHECK.size :]
        sound = len(raw) >= _HEAD_BYTES and raw.startswith(_MAGIC)
        if not sound or _CHECK.unpack_from(raw, len(_MAGIC))[0] != crc32c(body):
            raise StoreCorrupt("a blob fails its checksum", path=path)
        try:
            content = decompress(memoryview(body)[_SIZE.size :])
        except StoreCorrupt as error:
            raise StoreCorrupt("a blob does not decompress", path=path) from error
        if len(content) != _SIZE.unpack_from(body)[0] or self.hash_of(content) != name:
            raise StoreCorrupt("a blob does not hold what its name says", path=path)
        return content

    # --- references ---------------------------------------------------------------------

    def reference(self, txn: WriteTxn, name: bytes, count: int = 1) -> None:
        """Count references to a file that ``put`` wrote; ``Conflict`` if it was swept since."""
        if not self.path_of(name).exists():
            raise Conflict(
                "a large content was removed between being written and being committed",
                hint="write it again",
            )
        self._add(txn, name, count)

    def release(self, txn: WriteTxn, name: bytes, count: int = 1) -> None:
        """Take references away; the file goes with a later ``sweep`` once there are none."""
        self._add(txn, name, -count)

    @staticmethod
    def _add(txn: WriteTxn, name: bytes, change: int) -> None:
        payload = txn.get(tables.BLOBS, name)
        count, changed = (0, 0) if payload is None else _ROW.unpack(payload)
        if count + change < 0:
            raise StoreCorrupt("a blob has fewer references than users", path="kv")
        changed = max(changed + 1, time.time_ns())
        txn.put(tables.BLOBS, name, _ROW.pack(count + change, changed))

    @staticmethod
    def references(txn: ReadTxn, name: bytes) -> int:
        """How many records hold this blob."""
        payload = txn.get(tables.BLOBS, name)
        return 0 if payload is None else int(_ROW.unpack(payload)[0])

    @staticmethod
    def referenced(txn: ReadTxn) -> Iterator[bytes]:
        """The hashes of all blobs in use: what a snapshot copies."""
        for name, payload in txn.scan(tables.BLOBS):
            if _ROW.unpack(payload)[0]:
                yield name

    # --- upkeep -------------------------------------------------------------------------

    def sweep(
        self, store: Store, *, grace_s: float = GRACE_S, only: Sequence[bytes] | None = None
    ) -> int:
        """Remove files that nothing refers to; returns how many.

        The caller holds the maintenance lease. ``only``: these hashes and no others, which an
        erasure calls with ``grace_s=0``: a concurrent writer of the very same content then gets
        ``Conflict`` and writes again. Leftovers in ``tmp/`` go after the grace period.
        """
        now = time.time()
        chosen = None if only is None else set(only)
        with _typed_errors():
            with store.read() as txn:
                rows = {key: value for key, value in txn.scan(tables.BLOBS)}
            dead = [
                name
                for name in self._files() | rows.keys()
                if (chosen is None or name in chosen)
                and _is_released(rows.get(name), now, grace_s)
                and self._idle(self.path_of(name), now, grace_s)
            ]
            removed = 0
            for start in range(0, len(dead), _SWEPT_AT_ONCE):
                some = {name: rows.get(name) for name in dead[start : start + _SWEPT_AT_ONCE]}
                removed += store.write(partial(self._remove, rows=some, now=now, grace_s=grace_s))
            if removed:
                fsync_directory(self._folder)
            self._sweep_tmp(now, grace_s if only is None else max(grace_s, GRACE_S))
        return removed

    def _files(self) -> set[bytes]:
        names = set()
        for entry in os.scandir(self._folder):
            if len(entry.name) == 2 * HASH_BYTES:
                with contextlib.suppress(ValueError):  # not hexadecimal: no file of ours
                    names.add(bytes.fromhex(entry.name))
        return names

    @staticmethod
    def _idle(path: Path, now: float, grace_s: float) -> bool:
        """Whether nobody touched the file for the grace period; a missing one is idle."""
        try:
            return path.stat().st_mtime <= now - grace_s
        except FileNotFoundError:
            return True

    def _remove(
        self, txn: WriteTxn, rows: dict[bytes, bytes | None], now: float, grace_s: float
    ) -> int:
        """Remove those whose rows are still as they were committed.

        The one transaction function with an effect outside its transaction: the files were dead
        in a committed state and have not been referred to since, so that an abort costs nothing.
        """
        removed = 0
        for name, row in rows.items():
            if txn.get(tables.BLOBS, name) != row:
                continue
            path = self.path_of(name)
            aside = self._tmp / f"blob-swept-{name.hex()}"
            try:
                os.replace(path, aside)
            except FileNotFoundError:
                aside.unlink(missing_ok=True)  # of a sweep that was killed right here
            else:
                if not self._idle(aside, now, grace_s):
                    os.replace(aside, path)
                    continue
                aside.unlink()
                removed += 1
            if row is not None:
                txn.delete(tables.BLOBS, name)
        return removed

    def _sweep_tmp(self, now: float, grace_s: float) -> None:
        for entry in os.scandir(self._tmp):
            path = Path(entry.path)
            if entry.name.startswith("blob-") and self._idle(path, now, grace_s):
                path.unlink(missing_ok=True)

    def drop_drafts(self, names: Sequence[bytes], *, grace_s: float) -> bool:
        """Remove what writers of these contents left in ``tmp/`` when they were cut off.

        False while one may still be writing: its file is younger than ``grace_s``.
        """
        wanted = {name.hex() for name in names}
        now, done = time.time(), True
        with _typed_errors():
            for entry in os.scandir(self._tmp):
                if entry.name.startswith("blob-") and entry.name.rpartition("-")[2] in wanted:
                    path = Path(entry.path)
                    if self._idle(path, now, grace_s):
                        path.unlink(missing_ok=True)
                    else:
                        done = False
        return done

    def check(self, txn: ReadTxn) -> list[StoreCorrupt]:
        """Reads every blob in use; what is missing or damaged."""
        found = []
        for name in self.referenced(txn):
            try:
                self.get(name)
            except StoreCorrupt as error:
                found.append(error)
        return found

    def bytes_on_disk(self) -> int:
        """What the files take, referenced or not."""
        return sum(entry.stat().st_size for entry in os.scandir(self._folder))


def _is_released(row: bytes | None, now: float, grace_s: float) -> bool:
    """Whether a row (None: there is none) has counted nothing for the grace period."""
    if row is None:
        return True
    count, changed = _ROW.unpack(row)
    return not count and bool(changed <= (now - grace_s) * 1e9)


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    """The operating system's errors as ours; ``FileNotFoundError`` passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _typed(error) from error


def _typed(error: OSError) -> MemdbError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull("there is no room for a large content; nothing was written")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied("the blob directory cannot be used")
    return StoreCorrupt("a blob cannot be read or written", path="blob")
